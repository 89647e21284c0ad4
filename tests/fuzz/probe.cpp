// SPDX-License-Identifier: Apache-2.0
// Compiled and run once when the build is configured: whether this compiler has libFuzzer.
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) { return 0; }
