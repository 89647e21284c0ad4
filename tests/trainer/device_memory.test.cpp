// SPDX-License-Identifier: Apache-2.0
// In a run that checks device memory, the host cannot touch what any module keeps there.
#include <catch2/catch.hpp>
#include <tessera/model/transformer.hpp>
#include <tessera/moe/dispatch.hpp>
#include <tessera/moe/load_balance.hpp>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/zero3/gather_buffer.hpp>

#include "kernel/rope.hpp"
#include "support/device_fault.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;
using test::fault_of, test::touch;

const fs::path golden = fs::path(TESSERA_GOLDEN_DIRECTORY) / "deepseek_v3";

/// The array that the message of a touch names.
std::string touched(const void* data) {
  const std::string message = fault_of([&] { touch(data); });
  const std::size_t begin = message.find("array '");
  if (begin == std::string::npos) return message;
  return message.substr(begin + 7, message.find('\'', begin + 7) - begin - 7);
}

struct Loaded {
  Loaded() : model(open_model(grid.world(), golden, {})) { load_parameters(grid, model, store); }

  comm::ProcessGrid grid{MPI_COMM_WORLD, {1}};
  ModelSource model;
  zero3::ParameterStore<float> store = make_store<float>(grid, model.config);
};

}  // namespace

TEST_CASE("zero3: shards, gathered units, gradients, buffers") {
  Loaded loaded;
  const std::size_t layer = model::UnitIndex(loaded.model.config).dense(0);
  zero3::Unit& unit = loaded.store.unit(layer);
  unit.allocate_moments();
  CHECK(touched(unit.master().data()) == "master " + unit.name());
  CHECK(touched(unit.gradient().data()) == "gradient " + unit.name());
  CHECK(touched(unit.exp_avg().data()) == "exp_avg " + unit.name());
  CHECK(touched(unit.exp_avg_sq().data()) == "exp_avg_sq " + unit.name());
  CHECK(touched(loaded.store.gather(layer)) == "master " + unit.name());
  CHECK(touched(loaded.store.gradient(layer)) == "gradient " + unit.name());
  loaded.store.release(layer);
  CHECK(touched(zero3::gather_buffer(unit, "input_layernorm.weight").data()) == "buffer");
  zero3::BufferPool pool;
  CHECK(touched(pool.borrow(100).as<char>()) == "zero3 buffer");
}

TEST_CASE("moe: the plan of an exchange, rows, gradients") {
  const comm::Communicator axis(MPI_COMM_WORLD, "test");
  moe::TokenExchange exchange(axis);
  const auto index = kernel::new_zero_matrix<std::int32_t>({}, "choices", 7, 2);
  const moe::DispatchHandle handle = moe::plan_dispatch(exchange, 3, index);
  CHECK(touched(handle.slot.data()) == "dispatch slot");
  CHECK(touched(handle.send_token.data()) == "dispatch send_token");
  const auto x = exchange.tokens<float>(7, 5);
  CHECK(touched(x.data()) == "tokens");
  CHECK(touched(moe::dispatch_forward<float>(exchange, handle, x).data()) == "sent rows");
  CHECK(touched(moe::LoadBalance(3).gradient(1.0).data()) == "load balance gradient");
}

TEST_CASE("model and kernel: batches, activations, tables") {
  const std::vector<std::int64_t> tokens{1, 2, 3, 4};
  const model::Batch batch = model::make_batch(1, 4, tokens, tokens, 10);
  CHECK(touched(batch.tokens.data()) == "tokens");
  CHECK(touched(batch.targets.data()) == "targets");
  const kernel::RopeTable table = kernel::make_rope_table({{1.0, 0.25}, 1.0}, 9);
  CHECK(touched(table.sine.data()) == "tessera::rope_sine");
}

TEST_CASE("trainer: what a batch reader has read") {
  const Loaded loaded;
  TokenDataOptions options;
  options.vocab_size = loaded.model.config.vocab_size;
  const TokenData data = TokenData::open(loaded.grid.world(), golden / "tokens.npy", options);
  const std::vector<std::int64_t> first{0};
  const StepBatches read =
      BatchReader(loaded.grid.world(), data, options.vocab_size, 0).read(first);
  REQUIRE(!read.batches.empty());
  CHECK(touched(read.batches.front().tokens.data()) == "tokens");
}

TEST_CASE("checkpoint: a reader that is given a shard of the device") {
  Loaded loaded;
  const zero3::Unit& unit = loaded.store.unit(0);
  const std::string message = fault_of([&] {
    loaded.model.source->load(loaded.grid, unit.parameters(), unit.slices(),
                              {unit.master().data(), unit.master().size()}, {});
  });
  INFO(message);
  CHECK(message.find("array 'master " + unit.name()) != std::string::npos);
  CHECK(message.find("tessera::checkpoint::") != std::string::npos);
}

}  // namespace tessera::trainer
