// SPDX-License-Identifier: Apache-2.0
// The test program's main has made an Environment already: a second one adopts what runs.
#include "comm/environment.hpp"

#include <Kokkos_Core.hpp>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>

#include "base/error.hpp"

using namespace tessera;
using namespace tessera::comm;

TEST_CASE("an Environment adopts a running MPI and Kokkos and leaves them running") {
  int argc = 0;
  char** argv = nullptr;
  {
    const Environment adopted(argc, argv);
    CHECK_FALSE(adopted.started_mpi());
    CHECK_FALSE(adopted.started_kokkos());
    CHECK(adopted.thread_level() >= MPI_THREAD_FUNNELED);
  }
  int finalized = 1;
  MPI_Finalized(&finalized);
  CHECK(finalized == 0);
  CHECK(Kokkos::is_initialized());
}

TEST_CASE("a running MPI below the required thread level is refused") {
  int argc = 0;
  char** argv = nullptr;
  CHECK_THROWS_AS(Environment(argc, argv, {.required_thread_level = MPI_THREAD_MULTIPLE + 1}),
                  Error);
}

TEST_CASE("idle ranks yield and TCP sends both ways at once unless the user chose otherwise") {
  CHECK(std::getenv("OMPI_MCA_mpi_yield_when_idle") != nullptr);
  CHECK(std::getenv("OMPI_MCA_btl_tcp_flags") != nullptr);
}

TEST_CASE("files are written by ROMIO where this Open MPI has it") {
  const char* component = std::getenv("OMPI_MCA_io");
  CHECK(std::string(component == nullptr ? "" : component) == romio_component());
}
