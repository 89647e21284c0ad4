// SPDX-License-Identifier: Apache-2.0
// Two gigabytes of MXFP4 experts as wide as gpt-oss', as bf16 weights alone on four ranks: each
// byte is read once, a rank holds its own experts and a bounded buffer, and blocks become the
// values they stand for.
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/checkpoint/hugging_face.hpp>
#include <tessera/checkpoint/load_bf16.hpp>
#include <tessera/model/parameter_units.hpp>
#include <tessera/zero3/flat_layout.hpp>

#include "base/block_distribution.hpp"
#include "support/collective_check.hpp"
#include "support/peak_memory.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* config_json =
    R"({"model_type": "gpt_oss", "vocab_size": 512, "hidden_size": 2880, "intermediate_size": 2880,
  "num_hidden_layers": 5, "num_local_experts": 32, "num_experts_per_tok": 4,
  "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 64, "sliding_window": 128,
  "tie_word_embeddings": false, "quantization_config": {"quant_method": "mxfp4"}})";

constexpr std::int64_t block_elements = 32, block_bytes = 16;

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Zeros with any scale, zeros of both signs, low codes, or any.
struct Block {
  std::uint8_t scale = 0;
  std::uint8_t codes[block_elements] = {};

  explicit Block(std::uint64_t random) {
    const std::uint64_t kind = random % 8;
    scale = static_cast<std::uint8_t>(100 + (random >> 8) % 40);
    for (std::int64_t i = 0; i < block_elements; ++i) {
      if (i % 16 == 0) random = mix(random + 1);
      const auto code = static_cast<std::uint8_t>((random >> (4 * (i % 16))) & 15);
      const std::uint8_t mask = kind == 0 ? 0 : kind == 1 ? 8 : kind == 2 ? 11 : 15;
      codes[i] = code & mask;
    }
  }
  std::uint8_t byte(std::int64_t i) const {
    return static_cast<std::uint8_t>(codes[2 * i] | (codes[2 * i + 1] << 4));
  }
  float value(std::int64_t i) const {
    constexpr float table[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    const float magnitude = std::ldexp(table[codes[i] & 7], scale - 127);
    return (codes[i] & 8) != 0 ? -magnitude : magnitude;
  }
};

/// The block at a place: one of many, chosen by a hash of tensor and index.
const Block& block_at(std::uint64_t tensor, std::int64_t index) {
  static const std::vector<Block> blocks = [] {
    std::vector<Block> made;
    for (std::uint64_t i = 0; i < 1 << 14; ++i) made.emplace_back(mix(i + 1));
    return made;
  }();
  const std::uint64_t place = (tensor + 1) * 0x9e3779b97f4a7c15ull + std::uint64_t(index);
  return blocks[mix(place) % blocks.size()];
}

struct Tensor {
  std::string name;
  const char* dtype;
  Shape shape;
  std::int64_t bytes;
};

/// Blocks and scales for the experts' matrices, bf16 zeros for the rest (a file's hole).
std::vector<Tensor> tensors_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> tensors;
  for (const Parameter& p : parameters) {
    if (!p.may_be_mxfp4) {
      tensors.push_back({p.name, "BF16", p.checkpoint_shape(), 2 * p.size()});
      continue;
    }
    const std::int64_t groups = p.shape[2] / block_elements;
    tensors.push_back(
        {p.name + "_blocks", "U8", {p.shape[0], p.shape[1], groups, block_bytes}, p.size() / 2});
    tensors.push_back(
        {p.name + "_scales", "U8", {p.shape[0], p.shape[1], groups}, p.size() / block_elements});
  }
  return tensors;
}

/// This rank's share of a tensor's blocks, or of their scales.
void write_blocks(std::fstream& file, std::int64_t offset, std::uint64_t tensor,
                  const BlockDistribution& share, int rank, bool are_scales) {
  std::string chunk;
  file.seekp(offset + share.begin(rank) * (are_scales ? 1 : block_bytes));
  for (std::int64_t index = share.begin(rank); index < share.end(rank); ++index) {
    const Block& block = block_at(tensor, index);
    if (are_scales) chunk.push_back(static_cast<char>(block.scale));
    for (std::int64_t i = 0; !are_scales && i < block_bytes; ++i) {
      chunk.push_back(static_cast<char>(block.byte(i)));
    }
    if (chunk.size() < 1 << 20 && index + 1 < share.end(rank)) continue;
    file << chunk;
    chunk.clear();
  }
}

/// Returns the bytes of all tensors. Each rank writes its share.
std::int64_t write_checkpoint(const comm::Communicator& world, const fs::path& directory,
                              const std::vector<Tensor>& tensors) {
  nlohmann::ordered_json header;
  std::int64_t end = 0;
  for (const Tensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {end, end + tensor.bytes}}};
    end += tensor.bytes;
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  const fs::path path = directory / "model.safetensors";
  if (world.rank() == 0) {
    std::ofstream(directory / "config.json") << config_json;
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << text;
    fs::resize_file(path, 8 + length + static_cast<std::uint64_t>(end));
  }
  world.barrier("header written");
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  std::uint64_t quantised = 0;
  for (const Tensor& tensor : tensors) {
    if (tensor.dtype != std::string("U8")) continue;
    const bool are_scales = tensor.name.ends_with("_scales");
    const std::uint64_t id = quantised++ / 2;
    const BlockDistribution share{are_scales ? tensor.bytes : tensor.bytes / block_bytes,
                                  world.size()};
    const std::int64_t begin = header[tensor.name]["data_offsets"][0];
    write_blocks(file, static_cast<std::int64_t>(8 + length) + begin, id, share, world.rank(),
                 are_scales);
  }
  file.close();
  world.barrier("tensors written");
  return end;
}

/// Elements of every 13th block of this slice that are not what their codes and scale stand for,
/// the sign of zero included.
std::int64_t count_wrong(const Slice& slice, const std::vector<bf16>& shard, std::uint64_t tensor) {
  std::int64_t num_wrong = 0;
  for (std::int64_t e = slice.begin; e < slice.end; e += 13 * block_elements) {
    const Block& block = block_at(tensor, e / block_elements);
    for (std::int64_t i = 0; i < block_elements; ++i) {
      const auto at = static_cast<std::size_t>(slice.shard_offset + e + i - slice.begin);
      const float value = shard[at];
      num_wrong += value != block.value(i) || std::signbit(value) != std::signbit(block.value(i));
    }
  }
  return num_wrong;
}

struct Part {
  std::vector<Slice> slices;
  std::vector<bf16> shard;
};

}  // namespace

TEST_CASE("Two gigabytes of MXFP4 become bf16 on the ranks that own them, read once") {
  // Each rank checks gigabytes before all meet: on a busy machine they come long after one another.
  const comm::Communicator world(MPI_COMM_WORLD, "test", {.deadline = std::chrono::minutes(2)});
  const test::TemporaryDirectory directory(world);
  const model::ModelConfig config = model::parse_config(config_json, "config.json");
  const auto units = parameter_units(config);
  const std::int64_t tensor_bytes =
      write_checkpoint(world, directory.path(), tensors_of(all_parameters(units)));
  CHECK(tensor_bytes > std::int64_t{2} << 30);

  const comm::ProcessGrid grid(MPI_COMM_WORLD, {4});
  const auto source = checkpoint::HuggingFaceSource::open(grid.world(), directory.path());
  const checkpoint::LoadOptions options;
  checkpoint::LoadReport report;
  std::vector<Part> parts;
  std::int64_t owned_bytes = 0;
  test::PeakMemory memory;
  const std::vector<zero3::UnitSpec> specs = place_units(grid, config, units);
  for (const zero3::UnitSpec& unit : specs) {  // slices point into it
    const comm::Communicator& group = unit.placement.group();
    const zero3::FlatLayout layout(unit.parameters, unit.placement.experts(), group.size());
    parts.push_back({layout.slices(unit.parameters, group.rank()),
                     std::vector<bf16>(static_cast<std::size_t>(layout.shard_size()))});
    owned_bytes += 2 * layout.shard_size();
    report += checkpoint::load_bf16(grid, *source, unit.parameters, parts.back().slices,
                                    parts.back().shard, options);
  }
  const std::int64_t peak_bytes = memory.stop();
  CHECK(report.read_bytes == report.planned_bytes);
  CHECK(report.exchanged_bytes == 0);
  CHECK(grid.world().all_reduce_value("read", report.read_bytes, comm::ReduceOp::sum) ==
        tensor_bytes);
  constexpr std::int64_t piece_bytes = 16 << 20;  // one piece in f32
  constexpr std::int64_t slack_bytes = 8 << 20;   // headers, the allocator, MPI's own buffers
  CHECK(peak_bytes <= owned_bytes + options.buffer_bytes + piece_bytes + slack_bytes);
  CHECK(peak_bytes >= owned_bytes);  // or the measurement has seen nothing

  std::int64_t num_wrong = 0;
  std::uint64_t tensor = 0;
  for (const Part& part : parts) {
    for (const Slice& slice : part.slices) {
      const Parameter& parameter = *slice.parameter;
      if (!parameter.may_be_mxfp4) continue;
      // Eight whole experts a rank, as `inspect` shows them: [8, 2880, 5760] and [8, 2880, 2880].
      CHECK(slice.size() == 8 * parameter.shape[1] * parameter.shape[2]);
      num_wrong += count_wrong(slice, part.shard, tensor++);
    }
  }
  CHECK(tensor == 10);
  CHECK(num_wrong == 0);
  world.barrier("checked");
}

}  // namespace tessera::trainer
