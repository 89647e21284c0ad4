// SPDX-License-Identifier: Apache-2.0
// What a run has of memory, at its start and where there is none left.
#pragma once

#include <string>

#include "base/out_of_memory.hpp"
#include "tessera/zero3/parameter_store.hpp"

namespace tessera::trainer {

/// One line: what the shards take on the rank with most, what is free where that is least, and what
/// was foretold (empty: nothing was). collective over world.
template <class T>
std::string describe_memory(const comm::Communicator& world, const zero3::ParameterStore<T>& store,
                            const std::string& foretold);

/// One line at the end, of what was foretold: what the run took beside `mib_before` of the program.
/// collective over world.
std::string describe_taken(const comm::Communicator& world, const kernel::Arena& arena,
                           double mib_before);

/// `error` with what this rank has of memory and how to need less. local.
template <class T>
OutOfMemory with_report(const std::string& error, const zero3::ParameterStore<T>& store,
                        const std::string& foretold);

}  // namespace tessera::trainer
