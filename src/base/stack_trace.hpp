// SPDX-License-Identifier: Apache-2.0
// Where the program is, for the message of a fault.
#pragma once

namespace tessera {

/// Loads what a later trace needs, so that it may come from a signal handler. local.
void warm_up_stack_trace();
/// The callers, innermost first, one a line: function (where the program exports its symbols), file
/// and offset, which `addr2line -Cfe FILE OFFSET` turns into a line. local.
void print_stack_trace(int descriptor);

}  // namespace tessera
