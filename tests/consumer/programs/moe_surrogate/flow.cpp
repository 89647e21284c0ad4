// SPDX-License-Identifier: Apache-2.0
#include "flow.hpp"

#include <cmath>

namespace {

constexpr double diffusivity = 3e-3, reaction = 80.0, relaxation = 1.0;
constexpr double speed = 0.5, shift = 0.15, period = 0.5;

using Rows = Kokkos::MDRangePolicy<Kokkos::Rank<2>>;

KOKKOS_INLINE_FUNCTION double reaction_rate(double c) { return reaction * c * (1 - c) * (c - 0.5); }
KOKKOS_INLINE_FUNCTION double reaction_curvature(double c) { return reaction * (3 - 6 * c); }
KOKKOS_INLINE_FUNCTION int wrap(int i, int n) { return i < 0 ? i + n : i >= n ? i - n : i; }

}  // namespace

Strip::Strip(MPI_Comm communicator, int coarse_cells, int refinement)
    : communicator(communicator), num_cells(coarse_cells * refinement) {
  MPI_Comm_rank(communicator, &rank);
  MPI_Comm_size(communicator, &size);
  const auto begin = [&](int r) { return coarse_cells * r / size * refinement; };
  first_row = begin(rank);
  num_rows = begin(rank + 1) - first_row;
}

void Scalar::exchange() const {
  const int n = strip_.num_cells, last = strip_.num_rows;
  const int below = (strip_.rank + strip_.size - 1) % strip_.size;
  const int above = (strip_.rank + 1) % strip_.size;
  const auto row = [&](int r) { return Kokkos::subview(cells_, r, Kokkos::ALL); };
  Kokkos::View<double*, Kokkos::HostSpace> out("row out", n), in("row in", n);
  const auto shift_row = [&](int from, int to, int destination, int source) {
    Kokkos::deep_copy(out, row(from));
    MPI_Sendrecv(out.data(), n, MPI_DOUBLE, destination, 0, in.data(), n, MPI_DOUBLE, source, 0,
                 strip_.communicator, MPI_STATUS_IGNORE);
    Kokkos::deep_copy(row(to), in);
  };
  shift_row(last, 0, above, below);
  shift_row(1, last + 1, below, above);
}

void Scalar::add(double factor, const Cells& change) const {
  const Cells cells = cells_;
  Kokkos::parallel_for(
      "add", Rows({0, 0}, {strip_.num_rows, strip_.num_cells}),
      KOKKOS_LAMBDA(int j, int i) { cells(j + 1, i) += factor * change(j, i); });
}

Velocity::Velocity(int num_cells, double time)
    : sin_x("sin x", num_cells + 1),
      sin_y("sin y", num_cells + 1),
      scale(speed / (2 * M_PI) * num_cells) {
  const double moved = shift * std::sin(2 * M_PI * time / period), dx = 1.0 / num_cells;
  const auto x = sin_x, y = sin_y;
  Kokkos::parallel_for(
      "velocity", num_cells + 1, KOKKOS_LAMBDA(int i) {
        x(i) = std::sin(2 * M_PI * (i * dx + moved));
        y(i) = std::sin(2 * M_PI * i * dx);
      });
}

void set_pattern(const Scalar& scalar) {
  const Cells cells = scalar.cells();
  const int n = scalar.strip().num_cells;
  const double half = M_PI / n;
  Kokkos::parallel_for(
      "pattern", Rows({0, 0}, {scalar.strip().num_rows + 2, n}), KOKKOS_LAMBDA(int j, int i) {
        // The mean over the cell, so that the pattern of the coarse grid is the mean of the fine
        // one's.
        cells(j, i) = 0.5 + 0.5 * std::sin(2 * M_PI * (i + 0.5) / n) * std::sin(half) / half;
      });
}

Cells tendency(const Scalar& scalar, double time) {
  const Strip strip = scalar.strip();
  const int n = strip.num_cells;
  const Velocity velocity(n, time);
  const Scalar pattern(strip);
  set_pattern(pattern);
  const Cells c = scalar.cells(), c0 = pattern.cells(), result("tendency", strip.num_rows, n);
  Kokkos::parallel_for(
      "tendency", Rows({0, 0}, {strip.num_rows, n}), KOKKOS_LAMBDA(int j, int i) {
        const int row = strip.first_row + j, e = wrap(i + 1, n), w = wrap(i - 1, n);
        const double here = c(j + 1, i), east = c(j + 1, e), west = c(j + 1, w);
        const double north = c(j + 2, i), south = c(j, i);
        const double outflow = velocity.through_west(row, i + 1) * (east + here) -
                               velocity.through_west(row, i) * (here + west) +
                               velocity.through_south(row + 1, i) * (north + here) -
                               velocity.through_south(row, i) * (here + south);
        result(j, i) = -0.5 * n * outflow +
                       diffusivity * n * n * (east + west + north + south - 4 * here) +
                       reaction_rate(here) + relaxation * (c0(j + 1, i) - here);
      });
  return result;
}

Cells gradient_model(const Scalar& coarse, double time) {
  const Strip strip = coarse.strip();
  const int n = strip.num_cells;
  const Velocity velocity(n, time);
  const Cells c = coarse.cells(), result("gradient model", strip.num_rows, n);
  Kokkos::parallel_for(
      "gradient model", Rows({0, 0}, {strip.num_rows, n}), KOKKOS_LAMBDA(int j, int i) {
        const int row = strip.first_row + j, e = wrap(i + 1, n), w = wrap(i - 1, n);
        // Differences over one cell: of the scalar, and of the velocity across the cell.
        const double cx = 0.5 * (c(j + 1, e) - c(j + 1, w)), cy = 0.5 * (c(j + 2, i) - c(j, i));
        const double cxx = c(j + 1, e) - 2 * c(j + 1, i) + c(j + 1, w);
        const double cyy = c(j + 2, i) - 2 * c(j + 1, i) + c(j, i);
        const double cxy = 0.25 * (c(j + 2, e) - c(j + 2, w) - c(j, e) + c(j, w));
        const double ux = velocity.through_west(row, i + 1) - velocity.through_west(row, i);
        const double uy =
            velocity.through_west(wrap(row + 1, n), i) - velocity.through_west(row, i);
        const double vx = velocity.through_south(row, i + 1) - velocity.through_south(row, i);
        // -div of (1/12) grad u . grad c, in cells; u is free of divergence, so v_y = -u_x.
        const double flux = (ux * (cxx - cyy) + (uy + vx) * cxy) * n / 12;
        const double variance = (cx * cx + cy * cy) / 12;
        result(j, i) = -flux + 0.5 * reaction_curvature(c(j + 1, i)) * variance;
      });
  return result;
}

Cells filtered(const Cells& fine, int refinement) {
  const int r = refinement;
  const Cells coarse("filtered", fine.extent(0) / r, fine.extent(1) / r);
  Kokkos::parallel_for(
      "filter", Rows({0, 0}, {coarse.extent_int(0), coarse.extent_int(1)}),
      KOKKOS_LAMBDA(int j, int i) {
        double sum = 0.0;
        for (int b = 0; b < r; ++b)
          for (int a = 0; a < r; ++a) sum += fine(j * r + b, i * r + a);
        coarse(j, i) = sum / (r * r);
      });
  return coarse;
}

double root_mean_square(const Strip& strip, const Cells& values) {
  double sum = 0.0;
  Kokkos::parallel_reduce(
      "sum of squares", Rows({0, 0}, {values.extent_int(0), values.extent_int(1)}),
      KOKKOS_LAMBDA(int j, int i, double& part) { part += values(j, i) * values(j, i); }, sum);
  MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, strip.communicator);
  return std::sqrt(sum / strip.num_cells / strip.num_cells);
}

Cells difference(const Cells& a, const Cells& b) {
  const Cells result("difference", a.extent(0), a.extent(1));
  Kokkos::parallel_for(
      "difference", Rows({0, 0}, {a.extent_int(0), a.extent_int(1)}),
      KOKKOS_LAMBDA(int j, int i) { result(j, i) = a(j, i) - b(j, i); });
  return result;
}
