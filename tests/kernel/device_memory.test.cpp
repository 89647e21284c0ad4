// SPDX-License-Identifier: Apache-2.0
// The check of device memory: arrays are accessible to kernels, copies and products, to nobody
// else, and a touch by the host is told with the array's name.
#include <catch2/catch.hpp>
#include <optional>
#include <vector>

#include "base/device_access.hpp"
#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"
#include "support/device_fault.hpp"

namespace tessera::kernel {
namespace {

using test::fault_of, test::touch;

constexpr std::int64_t size = 3000;

/// 0, 1, 2, ...
Vector<double> counted() {
  const auto array = allocate<Vector<double>>("counted", size);
  Kokkos::parallel_for(
      "count", Range(Execution(), 0, size),
      KOKKOS_LAMBDA(const std::int64_t i) { array(i) = static_cast<double>(i); });
  return array;
}

/// The message of a touch of this array, which no work is at.
template <class View>
std::string touched(const View& array, std::int64_t at = 0) {
  return fault_of([&] { touch(array.data() + at); });
}

bool names(const std::string& message, const std::string& part) {
  return message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A touch by the host is told with the array, the last kernel and the callers") {
  const auto array = counted();
  for (const std::int64_t at : {std::int64_t{0}, size / 2, size - 1}) {
    const std::string message = touched(array, at);
    INFO(message);
    CHECK(names(message, "the host touched device memory: array 'counted' at byte " +
                             std::to_string(8 * at)));
    CHECK(names(message, "last on the device: count"));
    CHECK(names(message, "tessera::test::touch"));
    CHECK(!names(message, "it went on"));
    CHECK(!names(message, "signal"));
  }
  CHECK(names(fault_of([&] { *array.data() = 1.0; }), "array 'counted'"));
}

TEST_CASE("Arrays of one element, of any rank and from the pool are guarded") {
  ViewPool pool;
  const PoolScope scope(pool);
  CHECK(names(touched(allocate<Vector<std::uint8_t>>("a", std::int64_t{1})), "array 'a'"));
  CHECK(names(touched(allocate<Tensor3<float>>("b", 1, 3, 7), 20), "array 'b'"));
  CHECK(names(touched(allocate_zeros<Tensor4<bf16>>("c", 5, 1, 3, 7)), "array 'c'"));
  CHECK(names(touched(new_matrix<float>("d", 9, 13)), "array 'd'"));
  CHECK(names(touched(new_zero_vector<std::int32_t>({}, "e", 3)), "array 'e'"));
}

TEST_CASE("Guarded arrays are aligned for vectors") {
  for (const std::int64_t cols : {1, 3, 7, 100, 5000}) {
    const auto matrix = allocate<Matrix<bf16>>("matrix", std::int64_t{4}, cols);
    CHECK(reinterpret_cast<std::uintptr_t>(matrix.data()) % 64 == 0);
    CHECK(std::int64_t(matrix.extent(0)) == 4);
    CHECK(matrix.span_is_contiguous());
  }
}

TEST_CASE("Kernels, reductions, scans, copies and products work, and close what they opened") {
  const Execution execution;
  const auto array = counted();
  double sum = 0.0;
  Kokkos::parallel_reduce(
      "sum", Range(execution, 0, size),
      KOKKOS_LAMBDA(const std::int64_t i, double& part) { part += array(i); }, sum);
  CHECK(sum == size * (size - 1) / 2.0);
  CHECK(names(touched(array), "last on the device: sum"));

  const auto sums = allocate<Vector<double>>("sums", size);
  Kokkos::parallel_scan(
      "scan", Range(execution, 0, size),
      KOKKOS_LAMBDA(const std::int64_t i, double& before, const bool is_final) {
        if (is_final) sums(i) = before;
        before += array(i);
      });
  CHECK(host_copy(sums)(size - 1) == (size - 1) * (size - 2) / 2.0);
  CHECK(names(touched(sums), "last on the device: copy of 'sums' to 'host copy'"));

  const auto copy = allocate_zeros<Vector<double>>("copy", size);
  CHECK(names(touched(copy), "copy of"));
  Kokkos::deep_copy(execution, copy, array);
  CHECK(host_copy(copy)(17) == 17.0);
  Kokkos::deep_copy(execution, copy, 4.0);
  CHECK(host_copy(copy)(17) == 4.0);
  Kokkos::deep_copy(execution, Vector<double>(copy.data() + 5, 0), 1.0);
  Kokkos::deep_copy(execution, Vector<double>(copy.data() + 5, 10), 1.0);
  CHECK(host_copy(copy)(5) == 1.0);
  Kokkos::deep_copy(Vector<double>(nullptr, 0), Vector<double>(nullptr, 0));
  CHECK(names(touched(copy), "array 'copy'"));

  const auto a = allocate<Matrix<float>>("a", std::int64_t{5}, std::int64_t{7});
  const auto c = allocate<Matrix<float>>("c", std::int64_t{5}, std::int64_t{5});
  Kokkos::deep_copy(a, 2.0f);
  gemm<float, float>(execution, operand(Matrix<const float>(a)),
                     operand(Matrix<const float>(a)).t(), operand(c));
  CHECK(host_copy(c)(4, 4) == 28.0f);
  const std::string message = touched(c);
  CHECK(names(message, "array 'c'"));
}

TEST_CASE("The reference of a kernel, which is host code, cannot read device memory") {
  const auto a = allocate_zeros<Matrix<float>>("a", std::int64_t{5}, std::int64_t{5});
  const auto c = allocate_zeros<Matrix<float>>("c", std::int64_t{5}, std::int64_t{5});
  const std::string message = fault_of([&] {
    reference::gemm<float, float>(operand(Matrix<const float>(a)), operand(Matrix<const float>(a)),
                                  operand(c));
  });
  INFO(message);
  CHECK(names(message, "tessera::kernel::reference::gemm"));
}

TEST_CASE("A mirror is another array, as on a GPU") {
  const auto array = counted();
  const auto mirror = host_mirror(array);
  CHECK(mirror.data() != array.data());
  CHECK(mirror(7) == 0.0);
  mirror(7) = -1.0;
  CHECK(host_copy(array)(7) == 7.0);
  Kokkos::deep_copy(array, mirror);
  CHECK(host_copy(array)(7) == -1.0);
  CHECK(!host_sees_memory());
}

TEST_CASE("Memory that is freed is ordinary memory again") {
  for (int i = 0; i < 200; ++i) {
    const auto array = allocate_zeros<Vector<float>>("short-lived", std::int64_t{100} << (i % 12));
    const auto kept = array;
    std::vector<float> ordinary(std::size_t{100} << (i % 12), 1.0f);
    CHECK(ordinary.back() + host_copy(kept)(99) == 1.0f);
  }
}

TEST_CASE("The buffers of a collective are accessible until it ends, and no others") {
  const auto sent = counted(), other = counted();
  auto first = std::make_optional<DeviceAccess>("all-gather", sent.data() + 10, 40);
  auto second = std::make_optional<DeviceAccess>("all-reduce", sent.data() + 20, 40);
  CHECK(*sent.data() == 0.0);
  CHECK(names(touched(other), "last on the device: all-reduce"));
  first.reset();
  CHECK(host_copy(sent)(3) == 3.0);
  CHECK(*sent.data() == 0.0);
  second.reset();
  CHECK(names(touched(sent), "array 'counted'"));
}

TEST_CASE("A fault that is none of device memory's remains one") {
  touch(host_copy(counted()).data());
  const std::string message = fault_of([] { touch(reinterpret_cast<const void*>(8)); });
  INFO(message);
  CHECK(!names(message, "the host touched"));
  CHECK(!names(message, "it went on"));
}

}  // namespace tessera::kernel
