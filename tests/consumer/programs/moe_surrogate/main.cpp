// SPDX-License-Identifier: Apache-2.0
// A solver whose coarse grid does not see part of the physics learns that part while it runs. A
// fine run beside the coarse one gives the missing term for some time; a mixture of experts is
// trained on it in place, cells being tokens; then the fine run is needed no more. Here it goes on,
// to be compared with: the coarse run with the surrogate against one with the textbook closure and
// one with none. Usage: moe_surrogate [PICTURE_DATA]
#include <array>
#include <cmath>
#include <cstdio>
#include <tessera/base/error.hpp>
#include <tessera/comm/environment.hpp>
#include <tessera/comm/process_grid.hpp>

#include "flow.hpp"
#include "surrogate.hpp"

namespace {

constexpr int coarse_cells = 32, refinement = 4;
constexpr double dt = 1.5e-3;
constexpr int first_training_step = 100, first_test_step = 700, num_steps = 900;
constexpr int updates_per_step = 2;
constexpr double wanted_term_factor = 2.5, wanted_run_factor = 2.5, wanted_front_contrast = 0.4;

struct State {
  Strip strip;
  Scalar fine, coarse;

  explicit State(MPI_Comm own)
      : strip(own, coarse_cells, 1), fine(Strip(own, coarse_cells, refinement)), coarse(strip) {}

  /// The fine scalar's means, ghosts included, and the term that makes a coarse run reproduce them.
  Cells resolved_term(double time) const {
    fine.exchange();
    set(coarse, filtered(inner(fine), refinement));
    return difference(filtered(tendency(fine, time), refinement), tendency(coarse, time));
  }
  static Cells inner(const Scalar& scalar) {
    return Kokkos::subview(scalar.cells(), Kokkos::make_pair(1, scalar.strip().num_rows + 1),
                           Kokkos::ALL);
  }
  static void set(const Scalar& scalar, const Cells& values) {
    Kokkos::deep_copy(inner(scalar), values);
    scalar.exchange();
  }
};

/// What an expert sees of a cell: its 3 x 3 neighbourhood and the velocities through its faces.
Rows32 features_of(const Scalar& coarse, double time) {
  const Strip strip = coarse.strip();
  const int n = strip.num_cells;
  const Velocity velocity(n, time);
  const Cells c = coarse.cells();
  const Rows32 features("features", strip.num_rows * n, Surrogate::num_inputs);
  Kokkos::parallel_for(
      "features", strip.num_rows * n, KOKKOS_LAMBDA(int t) {
        const int j = t / n, i = t % n, row = strip.first_row + j;
        const double here = c(j + 1, i);
        int k = 0;
        features(t, k++) = 2 * here - 1;
        for (int b = -1; b <= 1; ++b)
          for (int a = -1; a <= 1; ++a)
            if (a != 0 || b != 0) features(t, k++) = 4 * (c(j + 1 + b, (i + a + n) % n) - here);
        features(t, k++) = 2 * velocity.through_west(row, i);
        features(t, k++) = 2 * velocity.through_west(row, i + 1);
        features(t, k++) = 2 * velocity.through_south(row, i);
        features(t, k++) = 2 * velocity.through_south(row + 1, i);
        const double cx = features(t, 5) - features(t, 4), cy = features(t, 7) - features(t, 2);
        features(t, k++) = cx * cx + cy * cy;
        features(t, k++) = features(t, 2) + features(t, 4) + features(t, 5) + features(t, 7);
        features(t, k++) = 1;
      });
  return features;
}

Values32 as_targets(const Cells& term, double scale) {
  const int n = term.extent_int(1);
  const Values32 values("targets", term.size());
  Kokkos::parallel_for(
      "targets", values.extent(0),
      KOKKOS_LAMBDA(int t) { values(t) = term(t / n, t % n) / scale; });
  return values;
}

Cells as_term(const Values32& values, const Strip& strip, double scale) {
  const int n = strip.num_cells;
  const Cells term("term", strip.num_rows, n);
  Kokkos::parallel_for(
      "term", values.extent(0), KOKKOS_LAMBDA(int t) { term(t / n, t % n) = scale * values(t); });
  return term;
}

/// Of the cells that each expert is first choice of, the share that lies in a front; the difference
/// between the expert with most and the one with least. collective.
double front_contrast(const Rows32& features, const Kokkos::View<int*>& choice, MPI_Comm own) {
  const auto host_features = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), features);
  const auto host_choice = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), choice);
  std::array<double, 2 * Surrogate::num_experts> counts{};
  for (std::size_t t = 0; t < host_choice.extent(0); ++t) {
    counts[2 * host_choice(t)] += 1;
    counts[2 * host_choice(t) + 1] += host_features(t, 13) > 1.0 ? 1 : 0;
  }
  MPI_Allreduce(MPI_IN_PLACE, counts.data(), counts.size(), MPI_DOUBLE, MPI_SUM, own);
  double least = 1.0, most = 0.0;
  for (int e = 0; e < Surrogate::num_experts; ++e) {
    if (counts[2 * e] < 10) continue;
    least = std::min(least, counts[2 * e + 1] / counts[2 * e]);
    most = std::max(most, counts[2 * e + 1] / counts[2 * e]);
  }
  return most - least;
}

/// A line for each cell: place, resolved term, gradient model, surrogate, first expert. Rank by
/// rank.
void write_picture(const char* path, const Strip& strip, const Cells& truth, const Cells& model,
                   const Cells& learned, const Kokkos::View<int*>& choice) {
  const auto host = [](const auto& view) {
    return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view);
  };
  const auto a = host(truth), b = host(model), c = host(learned);
  const auto e = host(choice);
  for (int turn = 0; turn < strip.size; ++turn) {
    if (turn == strip.rank) {
      std::FILE* file = std::fopen(path, turn == 0 ? "w" : "a");
      for (int j = 0; j < strip.num_rows; ++j)
        for (int i = 0; i < strip.num_cells; ++i)
          std::fprintf(file, "%g %g %g %g %g %d\n", (i + 0.5) / strip.num_cells,
                       (strip.first_row + j + 0.5) / strip.num_cells, a(j, i), b(j, i), c(j, i),
                       e(j * strip.num_cells + i));
      std::fclose(file);
    }
    MPI_Barrier(strip.communicator);
  }
}

int run(MPI_Comm own, const char* picture) {
  const tessera::comm::ProcessGrid grid(own, {.expert = Strip(own, coarse_cells, 1).size});
  Surrogate surrogate(grid);
  State state(own);
  set_pattern(state.fine);
  const Strip& strip = state.strip;
  Scalar with_surrogate(strip), with_model(strip), with_nothing(strip);
  constexpr double num_tokens = coarse_cells * coarse_cells;
  double scale = 1.0, error = 0.0, contrast = 0.0;
  double term_squares = 0.0, surrogate_squares = 0.0, model_squares = 0.0;
  const auto add_square = [&](double& sum, const Cells& values) {
    sum += std::pow(root_mean_square(strip, values), 2);
  };
  for (int step = 0; step < num_steps; ++step) {
    const double time = step * dt;
    const Cells term = state.resolved_term(time);
    if (step == first_training_step) scale = root_mean_square(strip, term);
    if (step >= first_training_step && step < first_test_step) {
      const Rows32 features = features_of(state.coarse, time);
      const Values32 target = as_targets(term, scale);
      const double rate = 6e-3 * (first_test_step - step) / (first_test_step - first_training_step);
      for (int k = 0; k < updates_per_step; ++k)
        error = surrogate.learn(features, target, num_tokens, rate);
    }
    if (step == first_test_step)
      for (const Scalar& scalar : {with_surrogate, with_model, with_nothing})
        State::set(scalar, State::inner(state.coarse));
    if (step >= first_test_step) {
      // The term itself, for the state of the fine run ...
      const Rows32 features = features_of(state.coarse, time);
      const Cells learned = as_term(surrogate.predict(features), strip, scale);
      const Cells model = gradient_model(state.coarse, time);
      add_square(term_squares, term);
      add_square(surrogate_squares, difference(learned, term));
      add_square(model_squares, difference(model, term));
      if (step == num_steps - 1) {
        contrast = front_contrast(features, surrogate.first_choice(), own);
        if (picture != nullptr)
          write_picture(picture, strip, term, model, learned, surrogate.first_choice());
      }
      // ... and three coarse runs that go on by themselves.
      const auto advance = [&](const Scalar& scalar, const Cells& closure) {
        const Cells change = tendency(scalar, time);
        scalar.add(dt, change);
        scalar.add(dt, closure);
        scalar.exchange();
      };
      advance(with_surrogate,
              as_term(surrogate.predict(features_of(with_surrogate, time)), strip, scale));
      advance(with_model, gradient_model(with_model, time));
      advance(with_nothing, Cells("none", strip.num_rows, strip.num_cells));
    }
    state.fine.add(dt, tendency(state.fine, time));
  }
  state.fine.exchange();
  const Cells truth = filtered(State::inner(state.fine), refinement);
  const auto distance = [&](const Scalar& scalar) {
    return root_mean_square(strip, difference(State::inner(scalar), truth));
  };
  const double term_error = std::sqrt(surrogate_squares / term_squares);
  const double model_error = std::sqrt(model_squares / term_squares);
  const double run_error = distance(with_surrogate), model_run_error = distance(with_model);
  const double bare_run_error = distance(with_nothing);
  const double run_factor = std::min(model_run_error, bare_run_error) / run_error;
  const bool is_good = model_error > wanted_term_factor * term_error &&
                       run_factor > wanted_run_factor && contrast > wanted_front_contrast;
  if (strip.rank == 0) {
    std::printf("%d ranks, last training error %.4f of the term's mean square\n", strip.size,
                error);
    std::printf("term:  surrogate off by %.1f %%, gradient model by %.1f %%: %.1f times better\n",
                100 * term_error, 100 * model_error, model_error / term_error);
    std::printf(
        "run:   after %d steps off by %.2e with the surrogate, %.2e with the gradient model, "
        "%.2e without closure: %.1f times better\n",
        num_steps - first_test_step, run_error, model_run_error, bare_run_error, run_factor);
    std::printf("experts: shares of front cells differ by %.2f\n", contrast);
    if (!is_good)
      std::fprintf(stderr, "FAILED: wanted are factors of %.1f and %.1f and a difference of %.1f\n",
                   wanted_term_factor, wanted_run_factor, wanted_front_contrast);
  }
  return is_good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  int level = 0, result = 1;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  Kokkos::initialize(argc, argv);
  try {
    const tessera::comm::Environment environment(argc, argv);  // adopts both
    MPI_Comm own = MPI_COMM_NULL;
    MPI_Comm_dup(MPI_COMM_WORLD, &own);
    result = run(own, argc > 1 ? argv[1] : nullptr);
    MPI_Comm_free(&own);
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  Kokkos::finalize();
  MPI_Finalize();
  return result;
}
