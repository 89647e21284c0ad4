// SPDX-License-Identifier: Apache-2.0
// Kokkos' kernels and copies, and what library products touch, as kernels on the legacy stream.
#include <Kokkos_Core.hpp>
#include <string_view>

#include "base/device_access.hpp"
#include "nccl_double.hpp"

// Until 3.6 Kokkos' tools are not told of fences: this takes the place of the library's own.
#if KOKKOS_VERSION < 30700
namespace Kokkos {
void fence() { cudaDeviceSynchronize(); }
}  // namespace Kokkos
#endif

namespace nccl_double {
namespace {

namespace Tools = Kokkos::Tools::Experimental;

Tools::EventSet before;  // another tool's: it is told first, and after

bool inside = false;  // a kernel inside a kernel, or the double's own accesses

void begin(const char* name) {
  if (!inside) begin_kernel(name);
  inside = true;
}

void end() {
  if (inside) end_kernel();
  inside = false;
}

class Products final : public tessera::DeviceAccessListener {
 public:
  void begin_access(const char* operation, const void*, std::int64_t) override {
    if (std::string_view(operation) == "gemm") begin(operation);
  }
  void end_access(const char* operation, const void*, std::int64_t) override {
    if (std::string_view(operation) == "gemm") end();
  }
};

}  // namespace

void listen_to_kokkos() {
  static Products products;
  before = Tools::get_callbacks();
  Tools::set_begin_parallel_for_callback([](const char* name, std::uint32_t id, std::uint64_t* k) {
    if (before.begin_parallel_for != nullptr) before.begin_parallel_for(name, id, k);
    begin(name);
  });
  Tools::set_begin_parallel_reduce_callback(
      [](const char* name, std::uint32_t id, std::uint64_t* k) {
        if (before.begin_parallel_reduce != nullptr) before.begin_parallel_reduce(name, id, k);
        begin(name);
      });
  Tools::set_begin_parallel_scan_callback([](const char* name, std::uint32_t id, std::uint64_t* k) {
    if (before.begin_parallel_scan != nullptr) before.begin_parallel_scan(name, id, k);
    begin(name);
  });
  Tools::set_end_parallel_for_callback([](std::uint64_t k) {
    end();
    if (before.end_parallel_for != nullptr) before.end_parallel_for(k);
  });
  Tools::set_end_parallel_reduce_callback([](std::uint64_t k) {
    end();
    if (before.end_parallel_reduce != nullptr) before.end_parallel_reduce(k);
  });
  Tools::set_end_parallel_scan_callback([](std::uint64_t k) {
    end();
    if (before.end_parallel_scan != nullptr) before.end_parallel_scan(k);
  });
  Tools::set_begin_deep_copy_callback([](Kokkos::Tools::SpaceHandle to, const char* to_name,
                                         const void* to_data, Kokkos::Tools::SpaceHandle from,
                                         const char* from_name, const void* from_data,
                                         std::uint64_t size) {
    if (before.begin_deep_copy != nullptr) {
      before.begin_deep_copy(to, to_name, to_data, from, from_name, from_data, size);
    }
    begin("deep copy");
  });
  Tools::set_end_deep_copy_callback([] {
    end();
    if (before.end_deep_copy != nullptr) before.end_deep_copy();
  });
#if KOKKOS_VERSION >= 30700
  Tools::set_begin_fence_callback([](const char* name, std::uint32_t id, std::uint64_t* k) {
    if (before.begin_fence != nullptr) before.begin_fence(name, id, k);
    const std::uint32_t instance = Tools::identifier_from_devid(id).instance_id;
    constexpr auto whole_device = Tools::SpecialSynchronizationCases::GlobalDeviceSynchronization;
    const bool is_of_tools = std::string_view(name).ends_with("Kokkos Profile Tool Fence");
    if (instance == Tools::int_for_synchronization_reason(whole_device) && !is_of_tools) {
      cudaDeviceSynchronize();
    }
  });
#endif
  tessera::add_device_access_listener(products);
}

}  // namespace nccl_double
