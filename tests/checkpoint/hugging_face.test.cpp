// SPDX-License-Identifier: Apache-2.0
// Loading shards from Hugging Face directories on every grid: each element in its place, each byte
// of the file read once by the whole job, staging memory within its bound, one rank's failure an
// error of all.
#include "tessera/checkpoint/hugging_face.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "load_fixture.hpp"
#include "same_error.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using test::for_each_grid;
using test::sum;
using test::TestTensor;
using test::write_and_open;

namespace {

Parameter dense(const char* name, Shape shape) { return {.name = name, .shape = std::move(shape)}; }
Parameter expert(const char* name, Shape shape, bool transposed) {
  return {.name = name, .shape = std::move(shape), .is_expert = true, .transposed = transposed};
}

const std::vector<TestTensor> dense_tensors = {{dense("embed", {37, 12}), Dtype::f32},
                                               {dense("norm", {12}), Dtype::bf16},
                                               {dense("router", {8, 12}), Dtype::f16},
                                               {dense("bias", {3}), Dtype::f64},
                                               {dense("head", {41, 12}), Dtype::bf16}};

/// Expert tensors of a layer with transposed ones in all types.
std::vector<TestTensor> expert_tensors(std::int64_t experts) {
  return {{expert("gate_up", {experts, 46, 33}, true), Dtype::bf16},
          {expert("gate_up_bias", {experts, 46}, false), Dtype::bf16},
          {expert("down", {experts, 33, 23}, true), Dtype::f32},
          {expert("column", {experts, 5, 1}, true), Dtype::f16},
          {expert("row", {experts, 1, 7}, true), Dtype::f64},
          {expert("blocks", {experts, 9, 2}, false), Dtype::f32}};
}

std::int64_t file_bytes(const std::vector<TestTensor>& tensors) {
  std::int64_t bytes = 0;
  for (const TestTensor& tensor : tensors)
    bytes += tensor.parameter.size() * std::int64_t(size_of(tensor.dtype));
  return bytes;
}

std::vector<test::Expected> expected_of(const std::vector<TestTensor>& tensors) {
  std::vector<test::Expected> expected;
  for (const TestTensor& tensor : tensors) {
    expected.push_back({tensor.parameter, {}});
    for (std::int64_t k = 0; k < tensor.parameter.size(); ++k)
      expected.back().values.push_back(test::element_value(tensor, k));
  }
  return expected;
}

LoadReport load_and_check(const comm::ProcessGrid& grid, Source& source,
                          const std::vector<TestTensor>& tensors, std::int64_t buffer_bytes) {
  return test::load_and_check(grid, source, expected_of(tensors), buffer_bytes);
}

}  // namespace

TEST_CASE("every element arrives and every byte of the file is read once by the job") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const auto experts = expert_tensors(8);  // 8 on 3 ranks: 3, 3, 2
    std::vector<TestTensor> all = dense_tensors;
    all.insert(all.end(), experts.begin(), experts.end());
    const auto source = write_and_open(grid, directory, all, 3);
    for (const std::int64_t buffer_bytes : {16 << 20, 4096, 1024, 333}) {
      INFO("buffer of " << buffer_bytes << " bytes");
      const LoadReport of_dense = load_and_check(grid, *source, dense_tensors, buffer_bytes);
      CHECK(sum(grid, of_dense.read_bytes) == file_bytes(dense_tensors));
      CHECK(of_dense.exchanged_bytes == 0);
      const LoadReport of_experts = load_and_check(grid, *source, experts, buffer_bytes);
      CHECK(sum(grid, of_experts.read_bytes) == file_bytes(experts));
      CHECK((grid.replica().size() > 1) == (sum(grid, of_experts.exchanged_bytes) > 0));
    }
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("a unit may lie in more files than are kept open") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    std::vector<TestTensor> tensors;
    for (int k = 0; k < 70; ++k)
      tensors.push_back({dense(fmt::format("t{}", k).c_str(), {5, 8}), Dtype::bf16});
    const auto source = write_and_open(grid, directory, tensors, 70);
    const LoadReport report = load_and_check(grid, *source, tensors, 4096);
    CHECK(sum(grid, report.read_bytes) == file_bytes(tensors));
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("ranks without experts and ranks without elements take part") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    // Fewer experts than ranks of some expert axes; fewer elements than 64 per rank.
    const std::vector<TestTensor> tensors = {{expert("down", {2, 3, 5}, true), Dtype::bf16}};
    const auto source = write_and_open(grid, directory, tensors, 1);
    const LoadReport report = load_and_check(grid, *source, tensors, 4096);
    CHECK(sum(grid, report.read_bytes) == file_bytes(tensors));
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("a file row longer than the buffer is read in parts") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const std::vector<TestTensor> tensors = {{expert("wide", {3, 700, 4}, true), Dtype::f32}};
    const auto source = write_and_open(grid, directory, tensors, 1);
    const LoadReport report = load_and_check(grid, *source, tensors, 600);
    CHECK(sum(grid, report.read_bytes) == file_bytes(tensors));
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("with whole experts for each rank little is exchanged") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = 1});
  const test::TemporaryDirectory directory(grid.world());
  const std::vector<TestTensor> tensors = {{expert("down", {12, 16, 32}, true), Dtype::bf16}};
  const auto source = write_and_open(grid, directory, tensors, 1);
  // Shards are whole experts here, and each rank reads the stretch of the file that it owns.
  const LoadReport report = load_and_check(grid, *source, tensors, 16 << 10);
  CHECK(report.exchanged_bytes == 0);
  grid.world().barrier("directory is done with");
}

TEST_CASE("a buffer that cannot hold one element of each rank is refused on all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = 1});
  const test::TemporaryDirectory directory(grid.world());
  const auto tensors = expert_tensors(2);
  const auto source = write_and_open(grid, directory, tensors, 1);
  for (const std::int64_t buffer_bytes : {0, 7, 50})
    CHECK_THAT(test::same_error(grid.world(), ErrorKind::usage,
                                [&] { load_and_check(grid, *source, tensors, buffer_bytes); }),
               Contains("staging buffer"));
}

TEST_CASE("a file that one rank cannot read is the same error on all ranks") {
  for_each_grid([](const comm::ProcessGrid& grid) {
    const test::TemporaryDirectory directory(grid.world());
    const auto tensors = expert_tensors(6);
    const auto source = write_and_open(grid, directory, tensors, 1);
    const std::vector<Parameter> parameters = test::parameters_of(expected_of(tensors));
    const test::Shard shard = test::deal_unit(grid, parameters);
    std::vector<float> values(std::size_t(shard.num_elements));
    const int culprit = grid.world().size() - 1;
    setenv("TESSERA_FAULT", fmt::format("unreadable:{}", culprit).c_str(), 1);
    const std::string message = test::same_error(grid.world(), ErrorKind::file, [&] {
      source->load(grid, parameters, shard.slices, values, {.buffer_bytes = 1024});
    });
    unsetenv("TESSERA_FAULT");
    CHECK_THAT(message, Contains("model.safetensors") && Contains("Permission denied"));
    load_and_check(grid, *source, tensors, 1024);
    grid.world().barrier("directory is done with");
  });
}

TEST_CASE("a file that shrinks after it was opened is an error on all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = 1});
  const test::TemporaryDirectory directory(grid.world());
  const auto tensors = expert_tensors(4);
  const auto source = write_and_open(grid, directory, tensors, 1);
  if (grid.world().rank() == 0) std::filesystem::resize_file(directory / "model.safetensors", 2000);
  grid.world().barrier("file is shorter");
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::file,
                              [&] { load_and_check(grid, *source, tensors, 4096); }),
             Contains("ends before byte") && Contains("became shorter"));
}

TEST_CASE("a tensor that is absent, misshapen or no weight is an error before anything is read") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = 1});
  const test::TemporaryDirectory directory(grid.world());
  const std::vector<TestTensor> stored = {{dense("norm", {12}), Dtype::bf16},
                                          {dense("counts", {4}), Dtype::i64}};
  const auto source = write_and_open(grid, directory, stored, 1);
  const auto error_for = [&](const Parameter& parameter) {
    return test::same_error(grid.world(), ErrorKind::keys, [&] {
      load_and_check(grid, *source, {{parameter, Dtype::f32}}, 4096);
    });
  };
  CHECK_THAT(error_for(dense("absent", {3})), Contains("no tensor 'absent'"));
  CHECK_THAT(error_for(dense("norm", {13})),
             Contains("norm: checkpoint has bf16 [12], the model needs [13]"));
  CHECK_THAT(error_for(dense("counts", {4})), Contains("i64"));
}
