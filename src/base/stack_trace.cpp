// SPDX-License-Identifier: Apache-2.0
#include "base/stack_trace.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace tessera {
namespace {

constexpr int max_frames = 48;

void print_frame(int descriptor, void* frame) {
  Dl_info where{};
  if (dladdr(frame, &where) == 0) {
    dprintf(descriptor, "  %p\n", frame);
    return;
  }
  int status = -1;
  char* const name = where.dli_sname == nullptr
                         ? nullptr
                         : abi::__cxa_demangle(where.dli_sname, nullptr, nullptr, &status);
  const char* const shown = status == 0 ? name : where.dli_sname;
  // One byte back: the call, not what comes after it.
  const auto offset = reinterpret_cast<std::uintptr_t>(frame) -
                      reinterpret_cast<std::uintptr_t>(where.dli_fbase) - 1;
  dprintf(descriptor, "  %.160s  %s 0x%zx\n", shown == nullptr ? "?" : shown, where.dli_fname,
          static_cast<std::size_t>(offset));
  std::free(name);
}

}  // namespace

void warm_up_stack_trace() {
  void* frame = nullptr;
  backtrace(&frame, 1);
}

void print_stack_trace(int descriptor) {
  std::array<void*, max_frames> frames{};
  const int count = backtrace(frames.data(), max_frames);
  for (int i = 1; i < count; ++i) print_frame(descriptor, frames[static_cast<std::size_t>(i)]);
}

}  // namespace tessera
