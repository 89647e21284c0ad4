// SPDX-License-Identifier: Apache-2.0
// Parameters that a checkpoint holds in parts or encoded: fused and cut tensors, MXFP4, FP8. Values
// are compared bit by bit with decoders written here, in plain loops.
#include <catch2/catch.hpp>
#include <cmath>

#include "load_fixture.hpp"
#include "same_error.hpp"
#include "tessera/checkpoint/encoding.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using test::Expected;
using test::for_each_grid;
using test::load_and_check;
using test::RawTensor;
using test::sum;
using test::write_and_open;

namespace {

/// Bytes that follow from the name: every value occurs.
std::string random_bytes(const std::string& name, std::int64_t count) {
  std::uint64_t state = std::hash<std::string>{}(name) | 1;
  std::string bytes;
  for (std::int64_t k = 0; k < count; ++k) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    bytes.push_back(char(state >> 56));
  }
  return bytes;
}

std::int64_t bytes_of(const std::vector<RawTensor>& tensors) {
  std::int64_t bytes = 0;
  for (const RawTensor& tensor : tensors) bytes += std::int64_t(tensor.bytes.size());
  return bytes;
}

/// A tensor of random values of its type, and what they are.
struct Filled {
  RawTensor tensor;
  std::vector<float> values;
};

Filled filled(const std::string& name, Dtype dtype, const Shape& shape) {
  const test::TestTensor tensor{{.name = name, .shape = shape}, dtype};
  Filled result{test::raw(tensor), {}};
  for (std::int64_t k = 0; k < num_elements(shape); ++k)
    result.values.push_back(test::element_value(tensor, k));
  return result;
}

void append(std::vector<float>& values, const std::vector<float>& more) {
  values.insert(values.end(), more.begin(), more.end());
}

/// A layer of per-expert files: gate and up rows fused to one parameter, all in changing types.
struct PerExpertLayer {
  std::vector<RawTensor> tensors;
  std::vector<Expected> expected;
};

PerExpertLayer per_expert_layer(std::int64_t num_experts, std::int64_t inner, std::int64_t hidden) {
  constexpr std::array dtypes = {Dtype::bf16, Dtype::f32, Dtype::f16, Dtype::f64, Dtype::bf16};
  PerExpertLayer layer;
  Expected gate_up{{.name = "experts.gate_up_proj",
                    .shape = {num_experts, 2 * inner, hidden},
                    .is_expert = true},
                   {}};
  Expected down{
      {.name = "experts.down_proj", .shape = {num_experts, hidden, inner}, .is_expert = true}, {}};
  std::size_t k = 0;
  const auto add = [&](Expected& to, const std::string& name, const Shape& shape) {
    const Filled part = filled(name, dtypes[k++ % dtypes.size()], shape);
    to.parameter.stored.push_back({name, shape, std::ssize(to.values), std::ssize(part.values), 0});
    append(to.values, part.values);
    layer.tensors.push_back(part.tensor);
  };
  for (std::int64_t e = 0; e < num_experts; ++e) {
    add(gate_up, fmt::format("experts.{}.w1", e), {inner, hidden});
    add(gate_up, fmt::format("experts.{}.w3", e), {inner, hidden});
    add(down, fmt::format("experts.{}.w2", e), {hidden, inner});
  }
  layer.expected = {gate_up, down};
  return layer;
}

/// 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives, times 2^(scale - 127).
float mxfp4_value(int code, int scale) {
  constexpr std::array magnitudes = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float magnitude = std::ldexp(magnitudes[std::size_t(code & 7)], scale - 127);
  return (code & 8) != 0 ? -magnitude : magnitude;
}

/// An MXFP4 weight: random codes, each fifth block zero or -0, scales from 0 to 252.
struct Mxfp4 {
  RawTensor blocks, scales;
  std::vector<float> values;
};

Mxfp4 mxfp4(const std::string& stem, const Shape& shape) {
  const std::int64_t num_blocks = num_elements(shape) / 32;
  const Shape scales_shape = {shape[0], shape[1], shape[2] / 32};
  Mxfp4 result{{stem + "blocks",
                Dtype::u8,
                {shape[0], shape[1], shape[2] / 32, 16},
                random_bytes(stem, num_blocks * 16)},
               {stem + "scales", Dtype::u8, scales_shape, ""},
               {}};
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    const int scale = b == 0 ? 0 : b == 1 ? 252 : int(100 + b % 50);
    result.scales.bytes.push_back(char(scale));
    for (std::size_t k = 0; k < 16; ++k) {
      char& pair = result.blocks.bytes[std::size_t(b) * 16 + k];
      if (b % 5 == 3) pair = k % 2 == 0 ? char(0x80) : char(0x08);
      const int byte = std::uint8_t(pair);
      result.values.push_back(mxfp4_value(byte & 15, scale));
      result.values.push_back(mxfp4_value(byte >> 4, scale));
    }
  }
  return result;
}

Parameter gpt_oss_matrix(const std::string& name, const Shape& shape) {
  return {
      .name = name, .shape = shape, .is_expert = true, .transposed = true, .may_be_mxfp4 = true};
}

float f8_value(int bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  const float magnitude = exponent == 0 ? std::ldexp(float(mantissa), -9)
                                        : std::ldexp(float(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

/// An FP8 matrix with factors of any float type, and the values rounded to bf16.
struct Fp8 {
  RawTensor matrix, scales;
  std::vector<float> values;
};

Fp8 fp8(const std::string& name, std::int64_t rows, std::int64_t columns, Dtype scale_dtype) {
  const Shape blocks = {(rows + 127) / 128, (columns + 127) / 128};
  std::vector<float> factors;
  RawTensor scales{name + "_scale_inv", scale_dtype, blocks, ""};
  for (std::int64_t k = 0; k < num_elements(blocks); ++k) {
    float value = (k % 2 == 0 ? 1.0f : 1.37f) * std::ldexp(1.0f, -int(k % 9));
    std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if (scale_dtype == Dtype::bf16) bits = bf16(value).bits, value = bf16(value);
    if (scale_dtype == Dtype::f16) bits = float_to_f16(value), value = f16_to_float(bits);
    scales.bytes.append(reinterpret_cast<const char*>(&bits), size_of(scale_dtype));
    factors.push_back(value);
  }
  Fp8 result{
      {name, Dtype::f8_e4m3, {rows, columns}, random_bytes(name, rows * columns)}, scales, {}};
  for (std::int64_t k = 0; k < rows * columns; ++k) {
    char& byte = result.matrix.bytes[std::size_t(k)];
    if ((byte & 0x7f) == 0x7f) byte = char(byte & 0x80);  // NaN
    const std::int64_t block = k / columns / 128 * blocks[1] + k % columns / 128;
    result.values.push_back(bf16(f8_value(std::uint8_t(byte)) * factors[std::size_t(block)]));
  }
  return result;
}

}  // namespace

TEST_CASE("fused parts of changing types arrive on uneven splits and each byte is read once") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const PerExpertLayer layer = per_expert_layer(5, 14, 22);
    const auto source = write_and_open(grid, directory, layer.tensors, 3);
    for (const std::int64_t buffer_bytes : {16 << 20, 333}) {
      const LoadReport report = load_and_check(grid, *source, layer.expected, buffer_bytes);
      CHECK(sum(grid, report.read_bytes) == bytes_of(layer.tensors));
      CHECK(report.exchanged_bytes == 0);
    }
    for (const Expected& each : layer.expected) CHECK(source->has(each.parameter));
    CHECK(source->origin(layer.expected[0].parameter).dtypes.size() == 10);
    CHECK(source->origin(layer.expected[1].parameter).dtypes[0] == Dtype::f16);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("rows of one tensor become several parameters") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const Filled qkv = filled("qkv", Dtype::bf16, {40, 12});
    const auto source = write_and_open(grid, directory, std::vector{qkv.tensor}, 1);
    std::vector<Expected> expected;
    for (const auto& [name, row, rows] : {std::tuple("q", 0, 24), {"k", 24, 8}, {"v", 32, 8}}) {
      const auto begin = qkv.values.begin() + row * 12;
      expected.push_back({{.name = name,
                           .shape = {rows, 12},
                           .stored = {{"qkv", {40, 12}, 0, rows * 12, row * 12}}},
                          {begin, begin + rows * 12}});
    }
    const LoadReport report = load_and_check(grid, *source, expected, 300);
    CHECK(sum(grid, report.read_bytes) == bytes_of({qkv.tensor}));
    CHECK(source->stored_bytes(expected[1].parameter) == 8 * 12 * 2);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("MXFP4 experts arrive bit by bit and are not exchanged, square ones included") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const Shape gate_up_shape = {3, 10, 64}, down_shape = {3, 64, 64};
    const Mxfp4 gate_up = mxfp4("gate_up_proj_", gate_up_shape), down = mxfp4("down.", down_shape);
    const std::vector<RawTensor> tensors = {gate_up.blocks, gate_up.scales, down.blocks,
                                            down.scales};
    const auto source = write_and_open(grid, directory, tensors, 2);
    const std::vector<Expected> expected = {
        {gpt_oss_matrix("gate_up_proj", gate_up_shape), gate_up.values},
        {gpt_oss_matrix("down", down_shape), down.values}};
    for (const std::int64_t buffer_bytes : {16 << 20, 300}) {
      ScaleShards scales;
      const LoadReport report = load_and_check(grid, *source, expected, buffer_bytes, &scales);
      CHECK(sum(grid, report.read_bytes) == bytes_of(tensors));
      CHECK(report.exchanged_bytes == 0);
      const std::vector<Parameter> parameters = test::parameters_of(expected);
      for (const Slice& slice : test::deal_unit(grid, parameters).slices) {
        const std::string& all = (slice.parameter->name == "down" ? down : gate_up).scales.bytes;
        const std::string mine = all.substr(slice.begin / 32, slice.size() / 32);
        const std::vector<std::uint8_t>& kept = scales[slice.parameter->name];
        CHECK(std::string(kept.begin(), kept.end()) == mine);
      }
    }
    CHECK(source->origin(expected[0].parameter).mxfp4);
    CHECK(source->stored_bytes(expected[0].parameter) == 3 * 10 * 2 * 17);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("the orientation of a square matrix follows from its encoding, not from its shape") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    // The same weights twice: as blocks [E, out, in], and plain, where the file has [E, in, out].
    const Shape shape = {2, 32, 32};
    const Mxfp4 weight = mxfp4("down_proj_", shape);
    RawTensor plain{"down_proj", Dtype::bf16, shape, std::string(2 * 32 * 32 * 2, '\0')};
    for (std::size_t k = 0; k < weight.values.size(); ++k) {
      const std::size_t expert = k / 1024, out = k / 32 % 32, in = k % 32;
      const bf16 value = weight.values[k];
      std::memcpy(&plain.bytes[2 * (expert * 1024 + in * 32 + out)], &value, 2);
    }
    const std::vector<Expected> expected = {{gpt_oss_matrix("down_proj", shape), weight.values}};
    const test::TemporaryDirectory as_blocks(grid.world()), as_plain(grid.world());
    const auto blocks =
        write_and_open(grid, as_blocks, std::vector{weight.blocks, weight.scales}, 1);
    load_and_check(grid, *blocks, expected, 4096);
    const auto other = write_and_open(grid, as_plain, std::vector{plain}, 1);
    load_and_check(grid, *other, expected, 4096);
    CHECK_FALSE(other->origin(expected[0].parameter).mxfp4);
    grid.world().barrier("directories are done with");
  });
}

TEST_CASE("an MXFP4 scale that bf16 cannot hold is refused by name on all ranks") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    for (const auto& [scale, reason] :
         {std::pair(255, "means NaN"), {254, "overflows"}, {253, "overflows"}}) {
      const test::TemporaryDirectory directory(grid.world());
      Mxfp4 weight = mxfp4("down_proj_", {4, 6, 64});
      weight.scales.bytes[2 * 12 + 3 * 2 + 1] = char(scale);  // expert 2, row 3, block 1
      const auto source =
          write_and_open(grid, directory, std::vector{weight.blocks, weight.scales}, 1);
      const std::string message = test::same_error(grid.world(), ErrorKind::numeric, [&] {
        load_and_check(grid, *source, {{gpt_oss_matrix("down_proj", {4, 6, 64}), weight.values}},
                       300);
      });
      CHECK_THAT(message, Contains(fmt::format("down_proj_scales: expert 2: the scale of row 3, "
                                               "block 1 is {}",
                                               scale)) &&
                              Contains(reason));
    }
  });
}

TEST_CASE("FP8 matrices are multiplied by the factors of their blocks wherever a slice begins") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    std::vector<RawTensor> tensors = {filled("plain", Dtype::bf16, {7, 9}).tensor};
    std::vector<Expected> expected = {
        {{.name = "plain", .shape = {7, 9}}, filled("plain", Dtype::bf16, {7, 9}).values}};
    for (const auto& [name, shape, dtype] : {std::tuple("tall", Shape{300, 200}, Dtype::f32),
                                             {"wide", {5, 1100}, Dtype::bf16},
                                             {"whole", {128, 130}, Dtype::f32},
                                             {"large", {300, 2400}, Dtype::bf16},
                                             {"small", {1, 1}, Dtype::f16}}) {
      const Fp8 weight = fp8(name, shape[0], shape[1], dtype);
      tensors.insert(tensors.end(), {weight.matrix, weight.scales});
      expected.push_back({{.name = name, .shape = shape}, weight.values});
    }
    const auto source = write_and_open(grid, directory, tensors, 1);
    // The smallest lets one row of the largest matrix's factors in at a time.
    for (const std::int64_t buffer_bytes : {16 << 20, 1000, 380}) {
      const LoadReport report = load_and_check(grid, *source, expected, buffer_bytes);
      // Where two ranks share a block, both need its row of factors.
      const std::int64_t twice = sum(grid, report.read_bytes) - bytes_of(tensors);
      CHECK(twice >= 0);
      CHECK(twice <= (grid.world().size() - 1) * 19 * 4);
    }
    CHECK(describe_encoding(*source, expected[1].parameter) == "fp8");
    CHECK(source->origin(expected[1].parameter).dtypes == std::vector{Dtype::bf16});
    CHECK(source->stored_bytes(expected[1].parameter) == 300 * 200 + 3 * 2 * 4);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("rows of FP8 matrices are fused beside plain ones") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const Fp8 gate = fp8("0.gate", 130, 144, Dtype::f32);
    const Filled up = filled("0.up", Dtype::f32, {130, 144});
    const auto source =
        write_and_open(grid, directory, std::vector{gate.matrix, gate.scales, up.tensor}, 1);
    // The last 90 rows of the FP8 matrix, from within a block, then the plain one.
    const std::int64_t skipped = 40 * 144, kept = 90 * 144, whole = 130 * 144;
    Expected expected{{.name = "fused",
                       .shape = {1, 220, 144},
                       .is_expert = true,
                       .stored = {{"0.gate", {130, 144}, 0, kept, skipped},
                                  {"0.up", {130, 144}, kept, whole, 0}}},
                      {gate.values.begin() + skipped, gate.values.end()}};
    append(expected.values, up.values);
    load_and_check(grid, *source, {expected}, 2000);
    CHECK(describe_encoding(*source, expected.parameter) == "fp8+f32");
    CHECK(source->stored_bytes(expected.parameter) == kept + 2 * 2 * 4 + whole * 4);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("a buffer that cannot hold one row of FP8 scales is refused on all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = 1});
  const test::TemporaryDirectory directory(grid.world());
  const Fp8 weight = fp8("wide", 60, 128 * 60, Dtype::f32);
  const auto source = write_and_open(grid, directory, std::vector{weight.matrix, weight.scales}, 1);
  const std::vector<Expected> expected = {
      {{.name = "wide", .shape = {60, 128 * 60}}, weight.values}};
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::usage,
                              [&] { load_and_check(grid, *source, expected, 400); }),
             Contains("staging buffer of 400 bytes") && Contains("at least 496"));
  load_and_check(grid, *source, expected, 496);
}
