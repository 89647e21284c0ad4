// SPDX-License-Identifier: Apache-2.0
// The declarations of cublas_interface.hpp against cuBLAS's own: compiled by the gate, never run.
#include <cublas_v2.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace own {
#define TESSERA_OWN_CUBLAS(name) own_##name
#include "kernel/cublas_interface.hpp"
}  // namespace own

namespace {

/// Enumerations as integers and pointers as void*, which is what a call passes.
template <class T>
auto passed() {
  if constexpr (std::is_pointer_v<T>) {
    return std::type_identity<void*>();
  } else if constexpr (std::is_enum_v<T>) {
    return std::type_identity<std::make_signed_t<std::underlying_type_t<T>>>();
  } else {
    return std::type_identity<T>();
  }
}
template <class T>
using Passed = typename decltype(passed<T>())::type;

template <class T>
struct Signature;
template <class R, class... Args>
struct Signature<R(Args...)> {
  using type = Passed<R>(Passed<Args>...);
};

template <class Ours, class Theirs>
constexpr bool agree =
    std::is_same_v<typename Signature<Ours>::type, typename Signature<Theirs>::type>;

#define TESSERA_SAME_CALL(name) \
  static_assert(agree<decltype(own::own_##name), decltype(::name)>, #name)
TESSERA_SAME_CALL(cublasCreate_v2);
TESSERA_SAME_CALL(cublasDestroy_v2);
TESSERA_SAME_CALL(cublasSetStream_v2);
TESSERA_SAME_CALL(cublasSetWorkspace_v2);
TESSERA_SAME_CALL(cublasSetMathMode);
TESSERA_SAME_CALL(cublasGetStatusString);
TESSERA_SAME_CALL(cublasGemmStridedBatchedEx_64);
TESSERA_SAME_CALL(cublasGemmGroupedBatchedEx_64);

#define TESSERA_SAME_VALUE(name) \
  static_assert(static_cast<int>(own::name) == static_cast<int>(::name), #name)
TESSERA_SAME_VALUE(CUBLAS_STATUS_SUCCESS);
TESSERA_SAME_VALUE(CUBLAS_STATUS_NOT_INITIALIZED);
TESSERA_SAME_VALUE(CUBLAS_STATUS_ALLOC_FAILED);
TESSERA_SAME_VALUE(CUBLAS_STATUS_INVALID_VALUE);
TESSERA_SAME_VALUE(CUBLAS_STATUS_NOT_SUPPORTED);
TESSERA_SAME_VALUE(CUBLAS_OP_N);
TESSERA_SAME_VALUE(CUBLAS_OP_T);
TESSERA_SAME_VALUE(CUBLAS_DEFAULT_MATH);
TESSERA_SAME_VALUE(CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
TESSERA_SAME_VALUE(CUBLAS_COMPUTE_32F);
TESSERA_SAME_VALUE(CUBLAS_GEMM_DEFAULT);
TESSERA_SAME_VALUE(CUDA_R_32F);
TESSERA_SAME_VALUE(CUDA_R_16BF);

}  // namespace
