// SPDX-License-Identifier: Apache-2.0
// Whole training steps through the NCCL backend, on NCCL's double, and through pinned host buffers:
// bit for bit what MPI gives, and NCCL never keeps the host until the device is idle.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <numeric>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "nccl_double.hpp"
#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

/// Messages only, as between nodes.
class Transport {
 public:
  explicit Transport(const char* name) {
    setenv("TESSERA_COLLECTIVES", name, 1);
    setenv("TESSERA_SHARED_MEMORY", "off", 1);
  }
  ~Transport() {
    unsetenv("TESSERA_COLLECTIVES");
    unsetenv("TESSERA_SHARED_MEMORY");
  }
};

struct Case {
  const char* family;  ///< a directory of tests/golden
  zero3::GradientTransport gradients;
};

struct Outcome {
  std::vector<double> losses;
  std::vector<float> masters;  ///< of this rank, one unit after the other
  comm::Traffic traffic;       ///< on the world axis
  std::int64_t num_device_synchronisations = 0;
};

template <class T>
Outcome train(int expert, const Case& test, const char* transport) {
  const Transport chosen(transport);
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / test.family;
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
  CHECK(grid.world().has_device_collectives() == (std::string(transport) != "mpi"));
  ModelSource source = open_model(grid.world(), path, {});
  auto store = make_store<T>(grid, source.config, test.gradients);
  load_parameters(grid, source, store, {}, Verify::no);
  model::Transformer<T> model(grid, source.config, store);
  const TokenData data = TokenData::open(grid.world(), path / "tokens.npy", {});
  const BatchReader reader(grid.world(), data, source.config.vocab_size, 0);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(data.num_sequences()));
  std::iota(rows.begin(), rows.end(), 0);
  const StepBatches read = reader.read(rows);
  Outcome outcome;
  for (int step = 1; step <= 3; ++step) {
    if (step == 2) nccl_double::reset_synchronisations();  // the first makes tables
    StepOptions options;
    options.optimizer_step = step;
    options.max_grad_norm = 1.0;
    outcome.losses.push_back(
        train_step(grid, model, store, std::span<const model::Batch>(read.batches), {}, options)
            .loss);
  }
  outcome.num_device_synchronisations = nccl_double::synchronisations().device;
  outcome.traffic = grid.world().traffic();
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const auto& master = store.unit(i).master();
    outcome.masters.insert(outcome.masters.end(), master.data(), master.data() + master.size());
  }
  return outcome;
}

template <class T>
void compare(const Case& test) {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert != 0) continue;
    CAPTURE(test.family, expert, to_string(dtype_of<T>));
    const Outcome mpi = train<T>(expert, test, "mpi");
    const Outcome nccl = train<T>(expert, test, "nccl");
    CHECK(nccl.losses == mpi.losses);
    CHECK(nccl.masters == mpi.masters);
    CHECK(nccl.traffic.all_gather.moved_bytes == mpi.traffic.all_gather.moved_bytes);
    CHECK(nccl.traffic.reduce_scatter.moved_bytes == mpi.traffic.reduce_scatter.moved_bytes);
    CHECK(nccl.num_device_synchronisations == 0);
    const Outcome staged = train<T>(expert, test, "staged");
    CHECK(staged.losses == mpi.losses);
    CHECK(staged.masters == mpi.masters);
  }
}

}  // namespace

TEST_CASE("Steps through NCCL and through MPI are the same bit for bit", "[nccl]") {
  using zero3::GradientTransport;
  const Case test =
      GENERATE(Case{"small", GradientTransport::f32}, Case{"deepseek_v3", GradientTransport::bf16},
               Case{"llama", GradientTransport::f32});
  compare<float>(test);
  compare<bf16>(test);
}

}  // namespace tessera::trainer
