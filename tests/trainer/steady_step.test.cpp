// SPDX-License-Identifier: Apache-2.0
// A steady step allocates nothing: neither Kokkos memory, nor more of the step's arena, nor shared
// memory. With the same batch from the second step on; with other batches in every step, whose
// experts get other numbers of rows, as soon as each has been seen.
#include <Kokkos_Core.hpp>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

using model::Recompute;

/// Counts Kokkos allocations while it lives.
class AllocationCount {
 public:
  AllocationCount() {
    count_ = 0;
    Kokkos::Tools::Experimental::set_allocate_data_callback(
        [](Kokkos_Profiling_SpaceHandle, const char*, const void*, std::uint64_t) { ++count_; });
  }
  ~AllocationCount() { Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr); }
  std::int64_t value() const { return count_; }

 private:
  static inline std::atomic<std::int64_t> count_;
};

/// Of Tessera's shared memory, as far as this process has it mapped.
std::int64_t shared_bytes() {
  std::ifstream maps("/proc/self/maps");
  std::int64_t sum = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/tessera-") == std::string::npos) continue;
    std::size_t length = 0;
    const auto begin = std::stoll(line, &length, 16);
    sum += std::stoll(line.substr(length + 1), nullptr, 16) - begin;
  }
  return sum;
}

/// What a step could have to allocate.
struct Holdings {
  std::int64_t allocations = 0;
  std::int64_t arena_bytes = 0;
  std::int64_t shared_bytes = 0;

  bool operator==(const Holdings&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Holdings& h) {
  return out << h.allocations << " allocations, arena " << h.arena_bytes << ", shared "
             << h.shared_bytes;
}

/// A run of a golden model on one grid.
template <class T>
class Run {
 public:
  Run(const std::string& name, int expert, Recompute recompute)
      : path_(std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / name),
        grid_(MPI_COMM_WORLD, {expert}),
        source_(open_model(grid_.world(), path_, {})),
        store_(make_store<T>(grid_, source_.config)),
        data_(TokenData::open(grid_.world(), path_ / "tokens.npy", {})),
        reader_(grid_.world(), data_, source_.config.vocab_size, 0) {
    load_parameters(grid_, source_, store_, {}, Verify::no);
    model_.emplace(grid_, source_.config, store_, recompute);
  }

  /// The first `batch` of the sequences from `first` on, in a circle.
  Holdings step(std::int64_t first, std::int64_t batch, double learning_rate) {
    const kernel::PoolScope scope(model_->pool());
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < batch; ++i) {
      rows.push_back((first + i) % data_.num_sequences());
    }
    const StepBatches read = reader_.read(rows);
    StepOptions options;
    options.learning_rate = learning_rate;
    options.max_grad_norm = 1.0;
    options.optimizer_step = ++num_steps_;
    train_step(grid_, *model_, store_, std::span<const model::Batch>(read.batches), {}, options,
               false);
    return {count_.value(), store_.pool().arena()->reserved_bytes(), shared_bytes()};
  }

  std::int64_t num_sequences() const { return data_.num_sequences(); }
  const kernel::Arena& arena() const { return *store_.pool().arena(); }
  const comm::Communicator& world() const { return grid_.world(); }

 private:
  std::filesystem::path path_;
  comm::ProcessGrid grid_;
  ModelSource source_;
  zero3::ParameterStore<T> store_;
  std::optional<model::Transformer<T>> model_;
  TokenData data_;
  BatchReader reader_;
  AllocationCount count_;
  std::int64_t num_steps_ = 0;
};

template <class T>
void check_same_batch(const std::string& name, int expert, Recompute recompute) {
  Run<T> run(name, expert, recompute);
  const Holdings first = run.step(0, 4, 0.0);
  // The first with dispatch's shared areas from its beginning: blocks of the arena move.
  const Holdings second = run.step(0, 4, 0.0);
  CHECK(second.allocations == first.allocations);
  CHECK(second.shared_bytes == first.shared_bytes);
  CHECK(second.arena_bytes <= 1.05 * first.arena_bytes);
  for (int i = 0; i < 3; ++i) CHECK(run.step(0, 4, 0.0) == second);
}

/// Rounds of all sequences, with weights that stay: in the first, dispatch's shared areas grow, and
/// with them other blocks of the arena are in use; the second has all in place, the third needs
/// nothing. Then training, whose choices of experts wander.
template <class T>
void check_changing_batches(const std::string& name, int expert, Recompute recompute) {
  Run<T> run(name, expert, recompute);
  Holdings seen;
  for (std::int64_t first = 0; first < 2 * run.num_sequences(); ++first) {
    seen = run.step(first, 3, 0.0);
  }
  for (std::int64_t first = 0; first < run.num_sequences(); ++first) {
    CHECK(run.step(first, 3, 0.0) == seen);
  }
  for (std::int64_t first = 0; first < run.num_sequences(); ++first) run.step(first, 3, 1e-3);
  // What is held follows what lives at once in the busiest step, and that follows the routing.
  CHECK(run.arena().reserved_bytes() <= 1.25 * run.arena().peak_bytes());
  CHECK(run.arena().reserved_bytes() <= 1.25 * seen.arena_bytes);
}

void check_grids(const char* shared_memory) {
  setenv("TESSERA_SHARED_MEMORY", shared_memory, 1);
  using Case = std::pair<std::string, Recompute>;
  const auto [name, recompute] =
      GENERATE(Case{"small", Recompute::none}, Case{"small", Recompute::attention},
               Case{"small", Recompute::layer}, Case{"deepseek_v3", Recompute::none});
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert != 0) continue;
    CAPTURE(name, to_string(recompute), expert, shared_memory);
    check_same_batch<float>(name, expert, recompute);
    check_same_batch<bf16>(name, expert, recompute);
    check_changing_batches<bf16>(name, expert, recompute);
  }
}

}  // namespace

TEST_CASE("A steady step allocates nothing where ranks share memory") { check_grids("on"); }
TEST_CASE("A steady step allocates nothing where everything travels") { check_grids("off"); }

}  // namespace tessera::trainer
