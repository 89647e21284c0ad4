// SPDX-License-Identifier: Apache-2.0
// Tells the check of device memory what Kokkos does, by the callbacks of Kokkos Tools.
#include "kernel/allocate.hpp"

#include "base/bytes.hpp"
#include "base/out_of_memory.hpp"

namespace tessera::kernel {
namespace {

namespace tools = Kokkos::Tools::Experimental;

void begin_kernel(const char* name, const std::uint32_t, std::uint64_t* id) {
  *id = 0;
  begin_device_work(name);
}
void end_kernel(const std::uint64_t) { end_device_work(); }

void begin_copy(Kokkos::Tools::SpaceHandle, const char* to, const void*, Kokkos::Tools::SpaceHandle,
                const char* from, const void*, const std::uint64_t) {
  begin_device_work("copy of '" + std::string(from) + "' to '" + to + "'");
}

/// `block` may begin with Kokkos' own header, which `bytes` may leave out.
void before_free(const Kokkos::Tools::SpaceHandle, const char*, const void* block,
                 const std::uint64_t bytes) {
  unguard_device_arrays(block, static_cast<std::int64_t>(bytes));
}

void install_callbacks() {
  if constexpr (Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible) {
    tools::set_begin_parallel_for_callback(begin_kernel);
    tools::set_end_parallel_for_callback(end_kernel);
    tools::set_begin_parallel_reduce_callback(begin_kernel);
    tools::set_end_parallel_reduce_callback(end_kernel);
    tools::set_begin_parallel_scan_callback(begin_kernel);
    tools::set_end_parallel_scan_callback(end_kernel);
    tools::set_begin_deep_copy_callback(begin_copy);
    tools::set_end_deep_copy_callback(end_device_work);
    tools::set_deallocate_data_callback(before_free);
  } else {
    fail(ErrorKind::usage,
         "TESSERA_DEVICE_MEMORY_CHECK is for builds whose kernels run on the host (a GPU's memory "
         "is checked by the GPU); unset it");
  }
}

}  // namespace

void fail_allocation(const std::string& label, double bytes, const char* reason) {
  throw OutOfMemory(
      fmt::format("no memory for {} of '{}': {}", format_bytes(bytes), label, reason));
}

void guard_array(const std::string& label, const void* data, std::int64_t bytes) {
  static const bool installed = (install_callbacks(), true);
  (void)installed;
  guard_device_array(label, data, bytes);
}

}  // namespace tessera::kernel
