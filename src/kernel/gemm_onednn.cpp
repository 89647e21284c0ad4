// SPDX-License-Identifier: Apache-2.0
// Matrix products on the host through oneDNN's matmul. A primitive is made once per shape and kept,
// because making one costs from microseconds (known to oneDNN's own cache) to milliseconds
// (compiled).
#include "kernel/gemm_onednn.hpp"

#include <array>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "base/contract.hpp"
#include "base/out_of_memory.hpp"

namespace tessera::kernel::onednn {
namespace {

/// Element strides of one operand after its transposition.
struct Strides {
  std::int64_t batch, row, col;
};

struct Problem {
  Dtype ab, c;
  std::int64_t batch, m, n, k;
  Strides a_strides, b_strides, c_strides;
  Into into;

  using Key = std::array<std::int64_t, 16>;
  Key key() const {
    return {static_cast<std::int64_t>(ab),
            static_cast<std::int64_t>(c),
            static_cast<std::int64_t>(into),
            batch,
            m,
            n,
            k,
            a_strides.batch,
            a_strides.row,
            a_strides.col,
            b_strides.batch,
            b_strides.row,
            b_strides.col,
            c_strides.batch,
            c_strides.row,
            c_strides.col};
  }
};

struct HashKey {
  std::size_t operator()(const Problem::Key& key) const {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over whole words
    for (const std::int64_t word : key) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x100000001b3u;
    }
    return hash ^ (hash >> 32);
  }
};

dnnl::engine& cpu_engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::data_type onednn_type(Dtype dtype) {
  TESSERA_EXPECT(dtype == Dtype::f32 || dtype == Dtype::bf16);
  return dtype == Dtype::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::memory::desc describe(Dtype dtype, std::int64_t batch, std::int64_t rows, std::int64_t cols,
                            const Strides& strides) {
  if (batch == 1) return {{rows, cols}, onednn_type(dtype), {strides.row, strides.col}};
  return {{batch, rows, cols}, onednn_type(dtype), {strides.batch, strides.row, strides.col}};
}

dnnl::matmul::primitive_desc describe(const Problem& p) {
  dnnl::primitive_attr attributes;
  attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // f32 stays f32, whatever the environment
  if (p.into == Into::accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const auto a = describe(p.ab, p.batch, p.m, p.k, p.a_strides);
  const auto b = describe(p.ab, p.batch, p.k, p.n, p.b_strides);
  const auto c = describe(p.c, p.batch, p.m, p.n, p.c_strides);
  const bool allow_empty = true;
#if DNNL_VERSION_MAJOR >= 3
  return {cpu_engine(), a, b, c, attributes, allow_empty};
#else
  return {dnnl::matmul::desc(a, b, c), attributes, cpu_engine(), allow_empty};
#endif
}

/// A compiled product and the three memory objects that its calls point at their operands.
class Product {
 public:
  explicit Product(const Problem& problem) {
    const auto description = describe(problem);
    if (!description) return;
    primitive_ = dnnl::matmul(description);
    a_ = dnnl::memory(description.src_desc(), cpu_engine(), DNNL_MEMORY_NONE);
    b_ = dnnl::memory(description.weights_desc(), cpu_engine(), DNNL_MEMORY_NONE);
    c_ = dnnl::memory(description.dst_desc(), cpu_engine(), DNNL_MEMORY_NONE);
    arguments_ = {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}};
  }

  /// False where oneDNN has no implementation: bf16 on a processor without AVX-512.
  bool available() const { return static_cast<bool>(primitive_); }

  void run(const void* a, const void* b, void* c) {
    thread_local dnnl::stream stream(cpu_engine());
    a_.set_data_handle(const_cast<void*>(a));
    b_.set_data_handle(const_cast<void*>(b));
    c_.set_data_handle(c);
    primitive_.execute(stream, arguments_);
    stream.wait();
  }

 private:
  dnnl::matmul primitive_;
  dnnl::memory a_, b_, c_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

/// One cache per thread: a primitive may not run twice at the same time. Bounded, because expert
/// shapes follow the number of tokens routed to them and never stop changing.
Product& cached_product(const Problem& problem) {
  constexpr std::size_t max_products = 1024;
  thread_local std::unordered_map<Problem::Key, Product, HashKey> products;
  const auto key = problem.key();
  if (const auto found = products.find(key); found != products.end()) return found->second;
  if (products.size() == max_products) products.clear();
  return products.emplace(key, Product(problem)).first->second;
}

template <class T>
Strides strides_of(const Operand<T>& x, std::int64_t batch_stride) {
  // One row may come with any stride, and oneDNN insists on a sensible one.
  const std::int64_t stride = x.rows == 1 ? x.cols : x.stride;
  if (x.transposed) return {batch_stride, 1, stride};
  return {batch_stride, stride, 1};
}

/// One row or column whose elements lie apart. oneDNN 3.7 takes them for neighbours, where it looks
/// for a layout in the stride of a dimension of one.
bool is_spread_vector(std::int64_t rows, std::int64_t cols, const Strides& strides) {
  return (rows == 1 && cols > 1 && strides.col != 1) || (cols == 1 && rows > 1 && strides.row != 1);
}

bool has_spread_vector(const Problem& p) {
  return is_spread_vector(p.m, p.k, p.a_strides) || is_spread_vector(p.k, p.n, p.b_strides) ||
         is_spread_vector(p.m, p.n, p.c_strides);
}

/// Products of one term each. oneDNN 3.12 takes the second matrices of such a batch for neighbours.
bool is_batch_of_outer_products(const Problem& p) {
  return p.batch > 1 && p.k == 1 && p.b_strides.batch != p.n;
}

/// By plain loops.
template <class T, class TC>
void multiply_vectors(const Problem& p, const T* a, const T* b, TC* c) {
  for (std::int64_t i = 0; i < p.batch; ++i) {
    for (std::int64_t row = 0; row < p.m; ++row) {
      for (std::int64_t col = 0; col < p.n; ++col) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < p.k; ++k) {
          sum += static_cast<float>(
                     a[i * p.a_strides.batch + row * p.a_strides.row + k * p.a_strides.col]) *
                 static_cast<float>(
                     b[i * p.b_strides.batch + k * p.b_strides.row + col * p.b_strides.col]);
        }
        TC& to = c[i * p.c_strides.batch + row * p.c_strides.row + col * p.c_strides.col];
        to = TC(p.into == Into::accumulate ? static_cast<float>(to) + sum : sum);
      }
    }
  }
}

/// A contiguous f32 copy, for processors whose oneDNN has no bf16.
std::vector<float> widen(const Operand<const bf16>& x) {
  std::vector<float> wide(static_cast<std::size_t>(x.rows * x.cols));
  for (std::int64_t row = 0; row < x.rows; ++row) {
    for (std::int64_t col = 0; col < x.cols; ++col) {
      wide[row * x.cols + col] = x.data[row * x.stride + col];
    }
  }
  return wide;
}

template <class TC>
void widened_gemm(const Operand<const bf16>& a, const Operand<const bf16>& b, const Operand<TC>& c,
                  Into into) {
  const std::vector<float> wide_a = widen(a);
  const std::vector<float> wide_b = widen(b);
  const Operand<const float> f32_a{wide_a.data(), a.rows, a.cols, a.cols, a.transposed};
  const Operand<const float> f32_b{wide_b.data(), b.rows, b.cols, b.cols, b.transposed};
  if constexpr (std::is_same_v<TC, float>) {
    gemm_batched(1, f32_a, 0, f32_b, 0, c, 0, into);
  } else {
    std::vector<float> product(static_cast<std::size_t>(c.rows * c.cols));
    gemm_batched(1, f32_a, 0, f32_b, 0, Operand<float>{product.data(), c.rows, c.cols, c.cols}, 0,
                 Into::overwrite);
    for (std::int64_t row = 0; row < c.rows; ++row) {
      for (std::int64_t col = 0; col < c.cols; ++col) {
        TC& element = c.data[row * c.stride + col];
        const float old = into == Into::accumulate ? static_cast<float>(element) : 0.0f;
        element = TC(old + product[row * c.cols + col]);
      }
    }
  }
}

}  // namespace

template <class T, class TC>
void gemm_batched(std::int64_t batch, Operand<const T> a, std::int64_t a_batch_stride,
                  Operand<const T> b, std::int64_t b_batch_stride, Operand<TC> c,
                  std::int64_t c_batch_stride, Into into) {
  const Problem problem{.ab = dtype_of<T>,
                        .c = dtype_of<TC>,
                        .batch = batch,
                        .m = c.rows,
                        .n = c.cols,
                        .k = a.op_cols(),
                        .a_strides = strides_of(a, batch == 1 ? 0 : a_batch_stride),
                        .b_strides = strides_of(b, batch == 1 ? 0 : b_batch_stride),
                        .c_strides = strides_of(c, batch == 1 ? 0 : c_batch_stride),
                        .into = into == Into::accumulate ? into : Into::overwrite};
  if (has_spread_vector(problem) || is_batch_of_outer_products(problem)) {
    return multiply_vectors(problem, a.data, b.data, c.data);
  }
  try {
    Product& product = cached_product(problem);
    if (product.available()) return product.run(a.data, b.data, c.data);
  } catch (const dnnl::error& error) {
    const std::string text =
        fmt::format("oneDNN failed in a product of {} x [{}, {}] x [{}, {}]: {}", batch, problem.m,
                    problem.k, problem.k, problem.n, error.what());
    if (error.status == dnnl_out_of_memory) throw OutOfMemory(text);
    throw Error(ErrorKind::internal, text);
  }
  if constexpr (std::is_same_v<T, bf16>) {
    for (std::int64_t i = 0; i < batch; ++i) {
      widened_gemm(a, b, c, into);
      a.data += a_batch_stride;
      b.data += b_batch_stride;
      c.data += c_batch_stride;
    }
  } else {
    fail(ErrorKind::internal, "oneDNN has no f32 product of {} x [{}, {}] x [{}, {}]", batch,
         problem.m, problem.k, problem.k, problem.n);
  }
}

#define TESSERA_INSTANTIATE(T, TC)                                                           \
  template void gemm_batched(std::int64_t, Operand<const T>, std::int64_t, Operand<const T>, \
                             std::int64_t, Operand<TC>, std::int64_t, Into);
TESSERA_INSTANTIATE(float, float)
TESSERA_INSTANTIATE(bf16, float)
TESSERA_INSTANTIATE(bf16, bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::onednn
