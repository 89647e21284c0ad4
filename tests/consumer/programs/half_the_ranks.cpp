// SPDX-License-Identifier: Apache-2.0
// A host code that trains a language model on half of its ranks, step by step, while the other half
// goes on with its own work: here a heat equation on a ring. The halves meet now and then, and the
// host decides by the loss when training is enough. Usage: half_the_ranks MODEL_DIRECTORY FOLDER
#include <mpi.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <tessera/base/error.hpp>
#include <tessera/comm/environment.hpp>
#include <tessera/comm/process_grid.hpp>
#include <tessera/trainer/trainer.hpp>
#include <vector>

namespace {

constexpr int num_meetings = 4, steps_between = 3;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

/// A text of 16-bit tokens in which each follows from the one before.
void write_tokens(const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  for (int i = 0, token = 7; i < 64 * 48; ++i) {
    token = (token * 5 + 3) % 251;
    file.put(static_cast<char>(token)).put('\0');
  }
}

/// Heat on a ring of cells, dealt to the ranks of `own`. Knows nothing of Tessera.
class Ring {
 public:
  explicit Ring(MPI_Comm own) : own_(own) {
    MPI_Comm_rank(own, &rank_);
    MPI_Comm_size(own, &size_);
    cells_.assign(64 + 2, 0.0);
    if (rank_ == 0) cells_[10] = 1.0;
  }
  void advance(int num_steps) {
    for (int step = 0; step < num_steps; ++step) {
      const int left = (rank_ + size_ - 1) % size_, right = (rank_ + 1) % size_;
      MPI_Sendrecv(&cells_[64], 1, MPI_DOUBLE, right, 0, &cells_[0], 1, MPI_DOUBLE, left, 0, own_,
                   MPI_STATUS_IGNORE);
      MPI_Sendrecv(&cells_[1], 1, MPI_DOUBLE, left, 1, &cells_[65], 1, MPI_DOUBLE, right, 1, own_,
                   MPI_STATUS_IGNORE);
      std::vector<double> next = cells_;
      for (std::size_t i = 1; i <= 64; ++i)
        next[i] = cells_[i] + 0.2 * (cells_[i - 1] - 2 * cells_[i] + cells_[i + 1]);
      cells_.swap(next);
    }
  }
  double heat() const {
    double sum = 0.0;
    for (std::size_t i = 1; i <= 64; ++i) sum += cells_[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, own_);
    return sum;
  }

 private:
  MPI_Comm own_;
  int rank_ = 0, size_ = 1;
  std::vector<double> cells_;
};

/// The training half: losses at the meetings.
std::vector<double> train(MPI_Comm own, MPI_Comm world, const std::string& model,
                          const std::string& folder) {
  const std::string tokens = folder + "/tokens.u16";
  int rank = 0;
  MPI_Comm_rank(own, &rank);
  if (rank == 0) write_tokens(tokens);
  MPI_Barrier(own);
  std::vector<double> losses;
  {
    const tessera::comm::ProcessGrid grid(own, {.expert = 1});
    tessera::trainer::TrainingOptions options;
    options.model = model;
    options.data = tokens;
    options.data_options.sequence_length = 48;
    options.batch = 4;
    options.num_steps = num_meetings * steps_between;
    options.num_held_out = 4;
    options.schedule.peak = 1e-2;
    options.schedule.kind = tessera::trainer::ScheduleKind::constant;
    const auto trainer = tessera::trainer::Trainer::create(grid, options);
    for (int meeting = 0; meeting < num_meetings; ++meeting) {
      tessera::trainer::StepMetrics metrics;
      for (int step = 0; step < steps_between; ++step) metrics = trainer->step();
      losses.push_back(metrics.loss);
      MPI_Bcast(&losses.back(), 1, MPI_DOUBLE, 0, world);  // rank 0 of the world trains
    }
    expect(trainer->evaluate() < losses.front(), "sequences held out are learned, too");
    trainer->save(folder + "/trained.h5");
    expect(trainer->state().step == num_meetings * steps_between, "all steps are counted");
  }
  return losses;
}

/// The other half: the losses that it is told of at the meetings.
std::vector<double> simulate(MPI_Comm own, MPI_Comm world) {
  Ring ring(own);
  std::vector<double> losses(num_meetings);
  for (double& loss : losses) {
    ring.advance(500);
    MPI_Bcast(&loss, 1, MPI_DOUBLE, 0, world);
  }
  expect(std::abs(ring.heat() - 1.0) < 1e-12, "heat is conserved beside the training");
  return losses;
}

}  // namespace

int main(int argc, char** argv) {
  int level = 0, rank = 0, size = 1;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  expect(argc == 3, "usage: half_the_ranks MODEL_DIRECTORY FOLDER");
  const bool trains = rank % 2 == 0;
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, trains ? 0 : 1, rank, &half);
  try {
    std::vector<double> losses;
    if (trains) {
      const tessera::comm::Environment environment(argc, argv, {.communicator = half});
      losses = train(half, MPI_COMM_WORLD, argv[1], argv[2]);
    } else {
      losses = simulate(half, MPI_COMM_WORLD);
    }
    expect(losses.back() < losses.front() - 0.5, "the loss falls");
    if (rank == 0)
      std::printf("%d of %d ranks trained: loss %.3f to %.3f\n", (size + 1) / 2, size,
                  losses.front(), losses.back());
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Comm_free(&half);
  MPI_Finalize();
}
