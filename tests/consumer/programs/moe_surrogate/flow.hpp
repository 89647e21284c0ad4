// SPDX-License-Identifier: Apache-2.0
// The host code: a scalar that is stirred, diffuses and reacts,
//   dc/dt = -div(u c) + D lap c + k c (1 - c)(c - 1/2) + a (c0 - c)
// on the periodic unit square, in finite volumes, central differences and Euler steps. Rows of
// cells are dealt to the ranks of a communicator of its own. Knows nothing of Tessera.
#pragma once

#include <mpi.h>

#include <Kokkos_Core.hpp>
#include <vector>

using Cells = Kokkos::View<double**, Kokkos::LayoutRight>;

/// Which rows of a grid of n x n cells a rank has.
struct Strip {
  MPI_Comm communicator;
  int rank, size, num_cells;  ///< n
  int first_row, num_rows;

  /// `refinement`: cells of this grid per side of one of the coarse grid that is dealt.
  Strip(MPI_Comm communicator, int coarse_cells, int refinement);
};

/// A scalar on a strip, with a ghost row below and above: row 0 and row num_rows + 1.
class Scalar {
 public:
  explicit Scalar(const Strip& strip)
      : strip_(strip), cells_("scalar", strip.num_rows + 2, strip.num_cells) {}

  const Strip& strip() const { return strip_; }
  const Cells& cells() const { return cells_; }
  /// Ghost rows from the neighbours. collective over the strip's communicator.
  void exchange() const;
  /// c += factor * change [num_rows, n]. local.
  void add(double factor, const Cells& change) const;

 private:
  Strip strip_;
  Cells cells_;
};

/// Sines of the stream function at the corners, so that velocities on faces are free of divergence.
struct Velocity {
  Kokkos::View<double*> sin_x, sin_y;  ///< [n + 1]
  double scale;

  Velocity(int num_cells, double time);
  KOKKOS_FUNCTION double through_west(int row, int column) const {
    return scale * sin_x(column) * (sin_y(row + 1) - sin_y(row));
  }
  KOKKOS_FUNCTION double through_south(int row, int column) const {
    return -scale * sin_y(row) * (sin_x(column + 1) - sin_x(column));
  }
};

/// The pattern c0 that the scalar is drawn to, on all rows of its strip.
void set_pattern(const Scalar& scalar);
/// dc/dt [num_rows, n] of a scalar whose ghosts are up to date. local.
Cells tendency(const Scalar& scalar, double time);
/// The textbook closure of what the coarse grid does not see, the gradient model (Clark, Ferziger
/// and Reynolds, J. Fluid Mech. 91, 1979): a scalar that is linear in each cell. local.
Cells gradient_model(const Scalar& coarse, double time);
/// Means over blocks: fine [rows, n] to coarse [rows / r, n / r]. local.
Cells filtered(const Cells& fine, int refinement);
/// Root of the mean square over all ranks. collective.
double root_mean_square(const Strip& strip, const Cells& values);
/// a - b. local.
Cells difference(const Cells& a, const Cells& b);
