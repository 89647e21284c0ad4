// SPDX-License-Identifier: Apache-2.0
// AMX for processors without it: its instructions, as the compiler emitted them, are carried out by
// a handler of SIGILL. So the machine code that ships is tested on every x86-64 machine.
#pragma once

namespace tessera::test {

/// Emulates, from construction to destruction, ldtilecfg, tilerelease, tilezero, tileloadd,
/// tileloaddt1, tilestored and tdpbf16ps of the calling thread. Any other illegal instruction, and
/// whatever AMX would refuse, ends the program. One at a time. local.
class AmxEmulator {
 public:
  static bool is_possible();  ///< x86-64 Linux

  AmxEmulator();
  ~AmxEmulator();
  AmxEmulator(const AmxEmulator&) = delete;
  AmxEmulator& operator=(const AmxEmulator&) = delete;
};

/// Instructions emulated so far by this thread.
long num_emulated_instructions();

}  // namespace tessera::test
