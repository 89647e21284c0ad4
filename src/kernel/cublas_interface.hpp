// SPDX-License-Identifier: Apache-2.0
// What Tessera calls of cuBLAS: its own header where Tessera is built for CUDA, elsewhere the same
// declarations, so that the mapping onto cuBLAS is tested on every machine. The compile gate holds
// the two against each other (tests/cuda_gate/cublas_agrees.cpp).
#pragma once

#if defined(TESSERA_CUDA) && !defined(TESSERA_OWN_CUBLAS)
#include <cublas_v2.h>
#else

#include <cstddef>
#include <cstdint>

#ifndef TESSERA_OWN_CUBLAS
#define TESSERA_OWN_CUBLAS(name) name
#endif

struct cublasContext;
struct CUstream_st;
using cublasHandle_t = cublasContext*;
using cudaStream_t = CUstream_st*;

// NOLINTBEGIN(readability-identifier-naming)
enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasMath_t {
  CUBLAS_DEFAULT_MATH = 0,
  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16
};
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
// NOLINTEND(readability-identifier-naming)
using cudaDataType = cudaDataType_t;

extern "C" {
cublasStatus_t TESSERA_OWN_CUBLAS(cublasCreate_v2)(cublasHandle_t* handle);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasDestroy_v2)(cublasHandle_t handle);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasSetStream_v2)(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasSetWorkspace_v2)(cublasHandle_t handle, void* workspace,
                                                         std::size_t size_bytes);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasSetMathMode)(cublasHandle_t handle, cublasMath_t mode);
const char* TESSERA_OWN_CUBLAS(cublasGetStatusString)(cublasStatus_t status);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasGemmStridedBatchedEx_64)(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, std::int64_t m,
    std::int64_t n, std::int64_t k, const void* alpha, const void* a, cudaDataType a_type,
    std::int64_t lda, long long a_stride, const void* b, cudaDataType b_type, std::int64_t ldb,
    long long b_stride, const void* beta, void* c, cudaDataType c_type, std::int64_t ldc,
    long long c_stride, std::int64_t batch_count, cublasComputeType_t compute_type,
    cublasGemmAlgo_t algorithm);
cublasStatus_t TESSERA_OWN_CUBLAS(cublasGemmGroupedBatchedEx_64)(
    cublasHandle_t handle, const cublasOperation_t transa[], const cublasOperation_t transb[],
    const std::int64_t m[], const std::int64_t n[], const std::int64_t k[], const void* alpha,
    const void* const a[], cudaDataType_t a_type, const std::int64_t lda[], const void* const b[],
    cudaDataType_t b_type, const std::int64_t ldb[], const void* beta, void* const c[],
    cudaDataType_t c_type, const std::int64_t ldc[], std::int64_t group_count,
    const std::int64_t group_size[], cublasComputeType_t compute_type);
}

#endif
