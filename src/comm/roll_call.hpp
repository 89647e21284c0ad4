// SPDX-License-Identifier: Apache-2.0
// Who is still there when a wait passes its deadline. A rank whose deadline passes asks the others,
// and ranks answer while they wait themselves: one that is gone, stopped or busy elsewhere does
// not.
#pragma once

#include <string>

namespace tessera::comm {

/// Makes a communicator for it, and learns every rank's host. For programs, whose world is theirs.
/// collective over MPI_COMM_WORLD.
void open_roll_call();
/// Before MPI ends; nothing if it was not opened. collective over MPI_COMM_WORLD.
void close_roll_call();

/// Answers who has asked. Called by waits every now and then; nothing on other threads than the one
/// that opened. local.
void answer_roll_call();

/// Asks, and waits three seconds for answers: "no sign of rank 2 (n2), rank 3 (n2)", or that all
/// answer; empty where it was not opened. Of many ranks only some ask, and get what the others do
/// not. local.
std::string call_roll();

}  // namespace tessera::comm
