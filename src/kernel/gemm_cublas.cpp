// SPDX-License-Identifier: Apache-2.0
#include "kernel/gemm_cublas.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/out_of_memory.hpp"
#include "kernel/cublas_interface.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel::cublas {
namespace {

// What NVIDIA recommends for Hopper; less would do on older devices.
constexpr std::int64_t workspace_bytes = std::int64_t{32} << 20;

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string text = fmt::format("{} failed: {}", call, cublasGetStatusString(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemory(text);
  throw Error(ErrorKind::internal, text);
}

/// The CUDA stream of an instance; null where the backend has none, as in the tests on a host.
template <class AnyExecution>
cudaStream_t stream_of(const AnyExecution& execution) {
  if constexpr (requires { execution.cuda_stream(); }) {
    return execution.cuda_stream();
  } else {
    return nullptr;
  }
}

/// A handle with its own workspace. Products on different streams may run at the same time, so each
/// stream has one.
class Library {
 public:
  explicit Library(cudaStream_t stream)
      : workspace_(Kokkos::view_alloc("cuBLAS workspace", Kokkos::WithoutInitializing),
                   workspace_bytes + workspace_alignment) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate_v2(&handle), "cublasCreate");
    handle_.reset(handle);
    check(cublasSetStream_v2(handle, stream), "cublasSetStream");
    check(cublasSetWorkspace_v2(handle, aligned(workspace_.data()), workspace_bytes),
          "cublasSetWorkspace");
    const auto strict = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    check(cublasSetMathMode(handle, strict), "cublasSetMathMode");
  }

  cublasHandle_t handle() const { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(cublasHandle_t handle) const { cublasDestroy_v2(handle); }
  };

  static constexpr std::int64_t workspace_alignment = 256;  // a view begins at half of it
  static char* aligned(char* first) {
    const auto past = reinterpret_cast<std::uintptr_t>(first) % workspace_alignment;
    return first + (workspace_alignment - past) % workspace_alignment;
  }

  Vector<char> workspace_;
  std::unique_ptr<cublasContext, Destroy> handle_;
};

/// The handles live as long as Kokkos: it ends them before its streams and its memory.
std::map<cudaStream_t, Library>& libraries() {
  static std::map<cudaStream_t, Library> all;
  return all;
}

cublasHandle_t handle_for(const Execution& execution) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (libraries().empty()) Kokkos::push_finalize_hook([] { libraries().clear(); });
  const cudaStream_t stream = stream_of(execution);
  return libraries().try_emplace(stream, stream).first->second.handle();
}

template <class T>
constexpr cudaDataType_t type_of = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

template <class T>
cublasOperation_t operation(const Operand<T>& x) {
  return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/// One row may come with any stride, and cuBLAS insists on a sensible one.
template <class T>
std::int64_t leading_dimension(const Operand<T>& x) {
  return x.rows == 1 ? x.cols : x.stride;
}

/// What cuBLAS asks of the operands of a grouped bf16 product.
template <class T>
bool is_aligned(const T* data, std::int64_t k) {
  const std::int64_t row_bytes = k * static_cast<std::int64_t>(sizeof(T));
  const std::uintptr_t unit = row_bytes % 16 == 0 ? 16 : row_bytes % 4 == 0 ? 4 : sizeof(T);
  return reinterpret_cast<std::uintptr_t>(data) % unit == 0;
}

template <class T, class TC>
bool has_one_call(std::span<const Product<T, TC>> products) {
  if constexpr (!std::is_same_v<T, TC>) return false;
  const auto is_aligned_product = [](const Product<T, TC>& p) {
    const std::int64_t k = p.a.op_cols();
    return is_aligned(p.a.data, k) && is_aligned(p.b.data, k) && is_aligned(p.c.data, k);
  };
  return products.size() > 1 && (std::is_same_v<T, float> ||
                                 std::all_of(products.begin(), products.end(), is_aligned_product));
}

/// The columns of the table that a grouped call takes, in cuBLAS's order of operands.
struct Table {
  std::vector<cublasOperation_t> first_operation, second_operation;
  std::vector<std::int64_t> m, n, k, first_stride, second_stride, c_stride, size;
  std::vector<float> alpha;
  std::vector<std::uintptr_t> addresses;  ///< of all first operands, all second ones, all results

  template <class T, class TC>
  explicit Table(std::span<const Product<T, TC>> products) {
    for (const auto& p : products) {
      first_operation.push_back(operation(p.b));
      second_operation.push_back(operation(p.a));
      m.push_back(p.c.cols);
      n.push_back(p.c.rows);
      k.push_back(p.a.op_cols());
      first_stride.push_back(leading_dimension(p.b));
      second_stride.push_back(leading_dimension(p.a));
      c_stride.push_back(leading_dimension(p.c));
    }
    size.assign(products.size(), 1);
    alpha.assign(products.size(), 1.0f);
    const auto put = [this](const void* data) {
      addresses.push_back(reinterpret_cast<std::uintptr_t>(data));
    };
    for (const auto& p : products) put(p.b.data);
    for (const auto& p : products) put(p.a.data);
    for (const auto& p : products) put(p.c.data);
  }
};

}  // namespace

template <class T, class TC>
void gemm_batched(const Execution& execution, std::int64_t batch, Operand<const T> a,
                  std::int64_t a_batch_stride, Operand<const T> b, std::int64_t b_batch_stride,
                  Operand<TC> c, std::int64_t c_batch_stride, Into into) {
  const float one = 1.0f;
  const float beta = into == Into::accumulate ? 1.0f : 0.0f;
  check(cublasGemmStridedBatchedEx_64(
            handle_for(execution), operation(b), operation(a), c.cols, c.rows, a.op_cols(), &one,
            b.data, type_of<T>, leading_dimension(b), b_batch_stride, a.data, type_of<T>,
            leading_dimension(a), a_batch_stride, &beta, c.data, type_of<TC>, leading_dimension(c),
            c_batch_stride, batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
}

template <class T, class TC>
void gemm_grouped(const Execution& execution, std::span<const Product<T, TC>> products,
                  std::span<const float> keep) {
  if (!has_one_call(products)) {
    for (std::size_t i = 0; i < products.size(); ++i) {
      const Product<T, TC>& p = products[i];
      const Into into = keep[i] == 0.0f ? Into::overwrite : Into::accumulate;
      cublas::gemm_batched(execution, 1, p.a, 0, p.b, 0, p.c, 0, into);
    }
    return;
  }
  const Table t(products);
  const auto count = static_cast<std::int64_t>(products.size());
  const Vector<std::uintptr_t> addresses =
      on_device<std::uintptr_t>(execution, "product operands", t.addresses);
  const auto operands = [&](std::int64_t column) {
    return reinterpret_cast<const void* const*>(addresses.data() + column * count);
  };
  check(cublasGemmGroupedBatchedEx_64(
            handle_for(execution), t.first_operation.data(), t.second_operation.data(), t.m.data(),
            t.n.data(), t.k.data(), t.alpha.data(), operands(0), type_of<T>, t.first_stride.data(),
            operands(1), type_of<T>, t.second_stride.data(), keep.data(),
            reinterpret_cast<void* const*>(addresses.data() + 2 * count), type_of<TC>,
            t.c_stride.data(), count, t.size.data(), CUBLAS_COMPUTE_32F),
        "cublasGemmGroupedBatchedEx");
}

#define TESSERA_INSTANTIATE(T, TC)                                                             \
  template void gemm_batched(const Execution&, std::int64_t, Operand<const T>, std::int64_t,   \
                             Operand<const T>, std::int64_t, Operand<TC>, std::int64_t, Into); \
  template void gemm_grouped(const Execution&, std::span<const Product<T, TC>>,                \
                             std::span<const float>);
TESSERA_INSTANTIATE(float, float)
TESSERA_INSTANTIATE(bf16, float)
TESSERA_INSTANTIATE(bf16, bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::cublas
