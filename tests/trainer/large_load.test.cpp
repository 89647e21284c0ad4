// SPDX-License-Identifier: Apache-2.0
// Loading 2 GB of experts on four ranks: every byte of the file is read once per job, as planned,
// no rank holds more than its own part and the stated buffer, and every element is where it
// belongs.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/checkpoint/hugging_face.hpp>
#include <tessera/model/parameter_units.hpp>
#include <tessera/zero3/flat_layout.hpp>

#include "comm/agree.hpp"
#include "support/collective_check.hpp"
#include "support/peak_memory.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* config_json =
    R"({"model_type": "gpt_oss", "vocab_size": 512, "hidden_size": 2048,
  "intermediate_size": 2048, "num_hidden_layers": 6, "num_local_experts": 16, "num_experts_per_tok": 4,
  "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 128,
  "tie_word_embeddings": false})";

/// bf16 bits of a file's element `i`: finite, and different for near positions.
std::uint16_t pattern(std::int64_t i) {
  return static_cast<std::uint16_t>((static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15ull >> 40) &
                                    0x3fff);
}

float value_at(const Parameter& parameter, std::int64_t element) {
  if (parameter.transposed) {  // here [E, out, in], in the file [E, in, out]
    const std::int64_t out = parameter.shape[1], in = parameter.shape[2];
    const std::int64_t expert = element / (out * in), row = element / in % out, col = element % in;
    element = (expert * in + col) * out + row;
  }
  bf16 value;
  value.bits = pattern(element);
  return value;
}

/// Rank 0 writes config.json and the header; the ranks write the tensors in turn.
std::int64_t write_checkpoint(const comm::Communicator& world, const fs::path& directory,
                              const std::vector<Parameter>& parameters) {
  nlohmann::ordered_json header;
  std::int64_t end = 0;
  for (const Parameter& parameter : parameters) {
    const std::int64_t begin = end;
    end += 2 * parameter.size();
    header[parameter.name] = {
        {"dtype", "BF16"}, {"shape", parameter.checkpoint_shape()}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (world.rank() == 0) {
    std::ofstream(directory / "config.json") << config_json;
    std::ofstream file(directory / "model.safetensors", std::ios::binary);
    const std::uint64_t length = text.size();
    file.write(reinterpret_cast<const char*>(&length), 8) << text;
  }
  world.barrier("header written");
  std::fstream file(directory / "model.safetensors",
                    std::ios::binary | std::ios::in | std::ios::out);
  std::vector<std::uint16_t> chunk;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (static_cast<int>(p) % world.size() != world.rank()) continue;
    const std::int64_t begin = header[parameters[p].name]["data_offsets"][0];
    file.seekp(static_cast<std::streamoff>(8 + text.size()) + begin);
    for (std::int64_t i = 0; i < parameters[p].size(); i += 1 << 20) {
      chunk.resize(std::min<std::int64_t>(1 << 20, parameters[p].size() - i));
      for (std::size_t j = 0; j < chunk.size(); ++j)
        chunk[j] = pattern(i + static_cast<std::int64_t>(j));
      file.write(reinterpret_cast<const char*>(chunk.data()), 2 * std::ssize(chunk));
    }
  }
  file.close();
  world.barrier("tensors written");
  return end;
}

struct Part {
  std::vector<Slice> slices;
  std::vector<float> shard;
};

/// Elements of this rank's shards that are not what the file has.
std::int64_t count_wrong(const std::vector<Part>& parts) {
  std::int64_t num_wrong = 0;
  for (const Part& part : parts) {
    for (const Slice& slice : part.slices) {
      const float* values = part.shard.data() + slice.shard_offset;
      for (std::int64_t e = slice.begin; e < slice.end; ++e) {
        num_wrong += values[e - slice.begin] != value_at(*slice.parameter, e);
      }
    }
  }
  return num_wrong;
}

}  // namespace

TEST_CASE("Two gigabytes of experts are read once, within the plan and the memory bound") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const model::ModelConfig config = model::parse_config(config_json, "config.json");
  const auto units = parameter_units(config);
  const std::int64_t tensor_bytes =
      write_checkpoint(world, directory.path(), all_parameters(units));
  CHECK(tensor_bytes > std::int64_t{2} << 30);
  for (const int expert : {2, 4}) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    INFO(grid.describe());
    const auto source = checkpoint::HuggingFaceSource::open(grid.world(), directory.path());
    const checkpoint::LoadOptions options;
    checkpoint::LoadReport report;
    std::vector<Part> parts;
    std::int64_t owned_bytes = 0;
    test::PeakMemory memory;
    const std::vector<zero3::UnitSpec> specs =
        place_units(grid, config, units);  // slices point into it
    for (const zero3::UnitSpec& unit : specs) {
      const comm::Communicator& group = unit.placement.group();
      const zero3::FlatLayout layout(unit.parameters, unit.placement.experts(), group.size());
      parts.push_back({layout.slices(unit.parameters, group.rank()),
                       std::vector<float>(static_cast<std::size_t>(layout.shard_size()))});
      owned_bytes += 4 * layout.shard_size();
      report +=
          source->load(grid, unit.parameters, parts.back().slices, parts.back().shard, options);
    }
    const std::int64_t peak_bytes = memory.stop();
    CHECK(report.read_bytes == report.planned_bytes);
    CHECK(report.peak_buffer_bytes <= options.buffer_bytes);
    constexpr std::int64_t slack_bytes = 8 << 20;  // headers, the allocator, MPI's own buffers
    CHECK(peak_bytes <= owned_bytes + options.buffer_bytes + slack_bytes);
    CHECK(peak_bytes >= owned_bytes);  // or the measurement has seen nothing
    CHECK(grid.world().all_reduce_value("read", report.read_bytes, comm::ReduceOp::sum) ==
          tensor_bytes);
    const std::int64_t exchanged =
        grid.world().all_reduce_value("exchanged", report.exchanged_bytes, comm::ReduceOp::sum);
    if (expert == 2) CHECK(exchanged > 0);   // two replicas read for one another
    if (expert == 4) CHECK(exchanged == 0);  // each rank alone has its experts
    CHECK(count_wrong(parts) == 0);
    world.barrier("loaded");
  }
}

}  // namespace tessera::trainer
