// SPDX-License-Identifier: Apache-2.0
// What `tessera doctor` finds out, and what it thinks of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"

namespace tessera::apps {

struct DoctorReport {
  std::vector<std::pair<std::string, std::string>> lines;  ///< (subject, what it is)
  std::vector<std::string> warnings;                       ///< slower or riskier than need be
  std::vector<std::string> failures;                       ///< Tessera cannot work like this
};

/// Versions and features of MPI, HDF5, Kokkos and oneDNN. local.
void examine_libraries(DoctorReport& report);

/// GPUs, their driver, and whether MPI knows their memory. local.
void examine_devices(DoctorReport& report);
/// PCI bus id of the GPU that this rank computes on; empty without one. local.
std::string own_device();
/// Whether this is a build for GPUs and this rank finds none. local.
bool lacks_device();

/// Ranks, nodes, cores, binding, threads, shared memory and memory. collective over world; the
/// report is the same on all ranks.
void examine_ranks(const comm::Communicator& world, DoctorReport& report);

/// Whether oneDNN uses bf16 instructions of this processor. local.
bool has_bf16_instructions();
/// "avx512_core_amx": the instruction set that oneDNN uses here. local.
std::string instruction_set();

}  // namespace tessera::apps
