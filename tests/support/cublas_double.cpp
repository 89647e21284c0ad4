// SPDX-License-Identifier: Apache-2.0
#include "support/cublas_double.hpp"

#include <mutex>
#include <set>

#include "base/dtype.hpp"
#include "kernel/cublas_interface.hpp"

struct cublasContext {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  int math_mode = CUBLAS_DEFAULT_MATH;
};

namespace {

using tessera::bf16;

struct State {
  std::mutex mutex;
  std::set<cublasHandle_t> handles;
  std::vector<tessera::test::CublasRecord> records;
  bool lost_precision = false;
  bool fails_next = false;
};

State& state() {
  static State all;
  return all;
}

/// One product, column-major as cuBLAS has it.
struct ColumnMajor {
  cublasOperation_t transa, transb;
  std::int64_t m, n, k;
  float alpha, beta;
  const void* a;
  const void* b;
  void* c;
  std::int64_t lda, ldb, ldc;
};

struct Types {
  cudaDataType_t a, b, c;
};

bool is_operation(cublasOperation_t operation) {
  return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T;
}

std::int64_t at_least_one(std::int64_t size) { return size < 1 ? 1 : size; }

/// What cuBLAS documents as CUBLAS_STATUS_INVALID_VALUE; null matrices besides, which it reads.
bool is_valid(const ColumnMajor& p) {
  if (p.m < 0 || p.n < 0 || p.k < 0) return false;
  if (!is_operation(p.transa) || !is_operation(p.transb)) return false;
  if (p.lda < at_least_one(p.transa == CUBLAS_OP_N ? p.m : p.k)) return false;
  if (p.ldb < at_least_one(p.transb == CUBLAS_OP_N ? p.k : p.n)) return false;
  if (p.ldc < at_least_one(p.m)) return false;
  return p.a != nullptr && p.b != nullptr && p.c != nullptr;
}

float element(const void* data, cudaDataType_t type, std::int64_t at) {
  return type == CUDA_R_32F ? static_cast<const float*>(data)[at]
                            : static_cast<float>(static_cast<const bf16*>(data)[at]);
}

void multiply(const ColumnMajor& p, const Types& types) {
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      double sum = 0.0;
      for (std::int64_t l = 0; l < p.k; ++l) {
        const std::int64_t a_at = p.transa == CUBLAS_OP_N ? i + l * p.lda : l + i * p.lda;
        const std::int64_t b_at = p.transb == CUBLAS_OP_N ? l + j * p.ldb : j + l * p.ldb;
        sum += static_cast<double>(element(p.a, types.a, a_at)) * element(p.b, types.b, b_at);
      }
      const std::int64_t c_at = i + j * p.ldc;
      // As in BLAS, content that is not kept is not read: it may be NaN.
      const double old = p.beta == 0.0f ? 0.0 : p.beta * element(p.c, types.c, c_at);
      const auto result = static_cast<float>(p.alpha * sum + old);
      if (types.c == CUDA_R_32F) {
        static_cast<float*>(p.c)[c_at] = result;
      } else {
        static_cast<bf16*>(p.c)[c_at] = bf16(result);
      }
    }
  }
}

/// Alignment that cuBLAS asks of bf16 pointers in a group.
bool is_aligned(const void* data, std::int64_t k) {
  const std::int64_t row_bytes = k * 2;
  const std::uintptr_t unit = row_bytes % 16 == 0 ? 16 : row_bytes % 4 == 0 ? 4 : 2;
  return reinterpret_cast<std::uintptr_t>(data) % unit == 0;
}

const void* advance(const void* data, cudaDataType_t type, std::int64_t elements) {
  return static_cast<const char*>(data) + elements * (type == CUDA_R_32F ? 4 : 2);
}

/// Status of a product before its arguments are looked at; records the call.
cublasStatus_t begin(cublasHandle_t handle, const char* call, std::int64_t products) {
  const std::lock_guard lock(state().mutex);
  if (!state().handles.contains(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (handle->workspace == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (handle->math_mode != CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) {
    state().lost_precision = true;
  }
  state().records.push_back({call, products});
  if (state().fails_next) {
    state().fails_next = false;
    return CUBLAS_STATUS_ALLOC_FAILED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new cublasContext;
  const std::lock_guard lock(state().mutex);
  state().handles.insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const std::lock_guard lock(state().mutex);
  if (state().handles.erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  handle->workspace = nullptr;  // as in cuBLAS, where it must be set anew
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  handle->math_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "no such handle, or one without a workspace";
    case CUBLAS_STATUS_ALLOC_FAILED: return "out of memory";
    case CUBLAS_STATUS_INVALID_VALUE: return "an argument has no valid value";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "types or alignment are not supported";
  }
  return "unknown";
}

cublasStatus_t cublasGemmStridedBatchedEx_64(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, std::int64_t m,
    std::int64_t n, std::int64_t k, const void* alpha, const void* a, cudaDataType a_type,
    std::int64_t lda, long long a_stride, const void* b, cudaDataType b_type, std::int64_t ldb,
    long long b_stride, const void* beta, void* c, cudaDataType c_type, std::int64_t ldc,
    long long c_stride, std::int64_t batch_count, cublasComputeType_t compute_type,
    cublasGemmAlgo_t algorithm) {
  const cublasStatus_t status = begin(handle, "strided", batch_count);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const bool has_types = a_type == b_type && (c_type == a_type || c_type == CUDA_R_32F);
  if (!has_types || compute_type != CUBLAS_COMPUTE_32F || algorithm != CUBLAS_GEMM_DEFAULT) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (alpha == nullptr || beta == nullptr || batch_count < 0) return CUBLAS_STATUS_INVALID_VALUE;
  ColumnMajor p{transa,
                transb,
                m,
                n,
                k,
                *static_cast<const float*>(alpha),
                *static_cast<const float*>(beta),
                a,
                b,
                c,
                lda,
                ldb,
                ldc};
  if (!is_valid(p)) return CUBLAS_STATUS_INVALID_VALUE;
  for (std::int64_t i = 0; i < batch_count; ++i) {
    p.a = advance(a, a_type, i * a_stride);
    p.b = advance(b, b_type, i * b_stride);
    p.c = const_cast<void*>(advance(c, c_type, i * c_stride));
    multiply(p, {a_type, b_type, c_type});
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmGroupedBatchedEx_64(
    cublasHandle_t handle, const cublasOperation_t transa[], const cublasOperation_t transb[],
    const std::int64_t m[], const std::int64_t n[], const std::int64_t k[], const void* alpha,
    const void* const a[], cudaDataType_t a_type, const std::int64_t lda[], const void* const b[],
    cudaDataType_t b_type, const std::int64_t ldb[], const void* beta, void* const c[],
    cudaDataType_t c_type, const std::int64_t ldc[], std::int64_t group_count,
    const std::int64_t group_size[], cublasComputeType_t compute_type) {
  for (const void* array : {static_cast<const void*>(transa), static_cast<const void*>(transb),
                            static_cast<const void*>(m), static_cast<const void*>(n),
                            static_cast<const void*>(k), alpha, static_cast<const void*>(a),
                            static_cast<const void*>(lda), static_cast<const void*>(b),
                            static_cast<const void*>(ldb), beta, static_cast<const void*>(c),
                            static_cast<const void*>(ldc), static_cast<const void*>(group_size)}) {
    if (array == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cublasStatus_t status = begin(handle, "grouped", group_count);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (a_type != b_type || c_type != a_type || compute_type != CUBLAS_COMPUTE_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  std::int64_t next = 0;
  for (std::int64_t g = 0; g < group_count; ++g) {
    for (std::int64_t i = 0; i < group_size[g]; ++i, ++next) {
      const ColumnMajor p{transa[g],
                          transb[g],
                          m[g],
                          n[g],
                          k[g],
                          static_cast<const float*>(alpha)[g],
                          static_cast<const float*>(beta)[g],
                          a[next],
                          b[next],
                          c[next],
                          lda[g],
                          ldb[g],
                          ldc[g]};
      if (!is_valid(p)) return CUBLAS_STATUS_INVALID_VALUE;
      const bool aligned = is_aligned(p.a, p.k) && is_aligned(p.b, p.k) && is_aligned(p.c, p.k);
      if (a_type == CUDA_R_16BF && !aligned) return CUBLAS_STATUS_NOT_SUPPORTED;
      multiply(p, {a_type, b_type, c_type});
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"

namespace tessera::test {

std::vector<CublasRecord> cublas_records() {
  const std::lock_guard lock(state().mutex);
  return state().records;
}

void clear_cublas_records() {
  const std::lock_guard lock(state().mutex);
  state().records.clear();
}

int num_cublas_handles() {
  const std::lock_guard lock(state().mutex);
  return static_cast<int>(state().handles.size());
}

bool cublas_lost_precision() {
  const std::lock_guard lock(state().mutex);
  return state().lost_precision;
}

void fail_next_cublas_call() {
  const std::lock_guard lock(state().mutex);
  state().fails_next = true;
}

}  // namespace tessera::test
