// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "handles.hpp"
#include "status.hpp"

namespace tessera::c {

const SharedGrid& shared(const tessera_grid* grid) {
  require(grid != nullptr, "the grid is NULL");
  return grid->grid;
}

}  // namespace tessera::c

using namespace tessera;

tessera_status tessera_grid_create(MPI_Comm communicator, int expert, tessera_grid** grid) {
  return c::guarded([&] {
    c::require(grid != nullptr, "tessera_grid_create: grid is NULL");
    c::require(communicator != MPI_COMM_NULL, "tessera_grid_create: MPI_COMM_NULL has no ranks");
    *grid = new tessera_grid{
        std::make_shared<const comm::ProcessGrid>(communicator, comm::GridShape{expert})};
  });
}

tessera_status tessera_grid_create_f(MPI_Fint communicator, int expert, tessera_grid** grid) {
  return tessera_grid_create(MPI_Comm_f2c(communicator), expert, grid);
}

tessera_status tessera_grid_place(const tessera_grid* grid, int* rank, int* size, int* expert_rank,
                                  int* expert_size, int* replica_rank, int* replica_size) {
  return c::guarded([&] {
    const comm::ProcessGrid& axes = *c::shared(grid);
    const auto put = [](const comm::Communicator& axis, int* to_rank, int* to_size) {
      if (to_rank != nullptr) *to_rank = axis.rank();
      if (to_size != nullptr) *to_size = axis.size();
    };
    put(axes.world(), rank, size);
    put(axes.expert(), expert_rank, expert_size);
    put(axes.replica(), replica_rank, replica_size);
  });
}

void tessera_grid_destroy(tessera_grid* grid) { delete grid; }
