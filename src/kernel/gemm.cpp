// SPDX-License-Identifier: Apache-2.0
// Matrix products: contracts, empty products, and who multiplies.
#include "kernel/gemm.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <type_traits>

#include "base/device_access.hpp"
#include "base/device_memory.hpp"
#include "base/error.hpp"
#include "base/polling.hpp"
#include "kernel/gemm_contract.hpp"
#include "kernel/gemm_onednn.hpp"
#include "kernel/gemm_packed.hpp"

namespace tessera::kernel {
namespace {

static_assert(Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible,
              "gemm.cpp multiplies in host memory; builds for a device have gemm_device.cpp");

template <class TC>
void fill_zeros(std::int64_t batch, const Operand<TC>& c, std::int64_t batch_stride) {
  for (std::int64_t i = 0; i < batch; ++i) {
    for (std::int64_t row = 0; row < c.rows; ++row) {
      TC* first = c.data + i * batch_stride + row * c.stride;
      std::fill(first, first + c.cols, TC(0.0f));
    }
  }
}

/// Null: oneDNN.
const packed::Backend* forced_backend(std::string_view option) {
  if (option == "onednn") return nullptr;
  for (const packed::Backend* const backend : packed::backends()) {
    if (backend->option == option && backend->is_available()) return backend;
  }
  if (option != "amx" && option != "avx512_bf16" && option != "avx512_f32") {
    fail(ErrorKind::usage, "TESSERA_GEMM={} is none of amx, avx512_bf16, avx512_f32, onednn",
         option);
  }
  fail(ErrorKind::usage,
       "TESSERA_GEMM={}, which the processor, its system or the compiler of this program does not "
       "have; unset it to get the best there is",
       option);
}

const packed::Backend* chosen_backend() {
  if (const char* option = std::getenv("TESSERA_GEMM")) return forced_backend(option);
  for (const packed::Backend* const backend : packed::backends()) {
    if (backend->is_available()) return backend;
  }
  return nullptr;
}

/// Chosen at the first product, for good.
const packed::Backend* bf16_backend() {
  static const packed::Backend* const backend = chosen_backend();
  return backend;
}

packed::Lines rows_of(const Operand<const bf16>& a) {
  return {a.data, a.op_rows(), a.op_cols(), a.stride, a.transposed};
}

packed::Lines columns_of(const Operand<const bf16>& b) {
  return {b.data, b.op_cols(), b.op_rows(), b.stride, !b.transposed};
}

template <class TC>
void packed_gemm(const packed::Backend& backend, const Operand<const bf16>& a,
                 const Operand<const bf16>& b, const bf16* bias, const Operand<TC>& c, Into into) {
  packed::product(backend, rows_of(a), columns_of(b),
                  {c.data, c.stride, std::is_same_v<TC, bf16>, into == Into::accumulate, bias,
                   into == Into::overwrite_far});
}

/// C = TC(product + bias); C may be the product.
template <class T, class TC>
void add_bias(const Operand<float>& product, const T* bias, const Operand<TC>& c) {
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const float* const sums = product.data + row * product.stride;
    TC* const sums_and_bias = c.data + row * c.stride;
    for (std::int64_t col = 0; col < c.cols; ++col) {
      sums_and_bias[col] = TC(sums[col] + static_cast<float>(bias[col]));
    }
  }
}

}  // namespace

const char* bf16_product_backend() {
  const packed::Backend* const backend = bf16_backend();
  return backend == nullptr ? "oneDNN" : backend->name;
}

template <class T, class TC>
void gemm_batched(const Execution& execution, std::int64_t batch, Operand<const T> a,
                  std::int64_t a_batch_stride, Operand<const T> b, std::int64_t b_batch_stride,
                  Operand<TC> c, std::int64_t c_batch_stride, Into into) {
  expect_conformable(a, b, c);
  if (batch == 0 || c.rows == 0 || c.cols == 0) return;
  execution.fence();  // the operands may still be being written
  poll_now_and_then();
  const DeviceAccess access("gemm", c.data, 0);
  const DeviceWork work("gemm", {a.data, b.data, c.data});
  if (a.op_cols() == 0) {
    if (into != Into::accumulate) fill_zeros(batch, c, c_batch_stride);
    return;
  }
  if constexpr (std::is_same_v<T, bf16>) {
    if (const packed::Backend* const backend = bf16_backend()) {
      for (std::int64_t i = 0; i < batch; ++i) {
        packed_gemm(*backend, a, b, nullptr, c, into);
        a.data += a_batch_stride;
        b.data += b_batch_stride;
        c.data += c_batch_stride;
      }
      return;
    }
  }
  onednn::gemm_batched(batch, a, a_batch_stride, b, b_batch_stride, c, c_batch_stride, into);
}

template <class T, class TC>
void gemm(const Execution& execution, Operand<const T> a, Operand<const T> b, Operand<TC> c,
          Into into) {
  gemm_batched(execution, 1, a, 0, b, 0, c, 0, into);
}

template <class T, class TC>
void gemm_with_bias(const Execution& execution, Operand<const T> a, Operand<const T> b,
                    const T* bias, Operand<TC> c) {
  if (bias == nullptr) return gemm(execution, a, b, c);
  const DeviceWork work("gemm_with_bias", {a.data, b.data, bias, c.data});
  if constexpr (std::is_same_v<T, bf16>) {
    const packed::Backend* const backend = bf16_backend();
    if (backend != nullptr && c.rows > 0 && c.cols > 0 && a.op_cols() > 0) {
      expect_conformable(a, b, c);
      execution.fence();
      const DeviceAccess access("gemm", c.data, 0);
      return packed_gemm(*backend, a, b, bias, c, Into::overwrite);
    }
  }
  if constexpr (std::is_same_v<TC, float>) {
    gemm(execution, a, b, c);
    add_bias(c, bias, c);
  } else {
    const auto product = new_matrix<float>("product", c.rows, c.cols);
    gemm(execution, a, b, operand(product));
    add_bias(operand(product), bias, c);
  }
}

template <class T, class TC>
void gemm_grouped(const Execution& execution, std::span<const Product<T, TC>> products, Into into) {
  for (const auto& p : products) {
    TESSERA_EXPECT(p.bias == nullptr || into == Into::overwrite);
    if (into == Into::overwrite) {
      gemm_with_bias(execution, p.a, p.b, p.bias, p.c);
    } else {
      gemm(execution, p.a, p.b, p.c, into);
    }
  }
}

#define TESSERA_INSTANTIATE(T, TC)                                                             \
  template void gemm_grouped(const Execution&, std::span<const Product<T, TC>>, Into);         \
  template void gemm(const Execution&, Operand<const T>, Operand<const T>, Operand<TC>, Into); \
  template void gemm_with_bias(const Execution&, Operand<const T>, Operand<const T>, const T*, \
                               Operand<TC>);                                                   \
  template void gemm_batched(const Execution&, std::int64_t, Operand<const T>, std::int64_t,   \
                             Operand<const T>, std::int64_t, Operand<TC>, std::int64_t, Into);
TESSERA_INSTANTIATE(float, float)
TESSERA_INSTANTIATE(bf16, float)
TESSERA_INSTANTIATE(bf16, bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
