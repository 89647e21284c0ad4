// SPDX-License-Identifier: Apache-2.0
#include "comm/operations_mpi.hpp"

#include <algorithm>
#include <cmath>

#include "base/contract.hpp"

namespace tessera::comm {
namespace {

struct Add {
  float operator()(float a, float b) const { return a + b; }
};
struct Larger {
  float operator()(float a, float b) const { return std::fmax(a, b); }
};
struct Smaller {
  float operator()(float a, float b) const { return std::fmin(a, b); }
};

template <class Combine>
void reduce_bf16(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const bf16*>(in);
  auto* b = static_cast<bf16*>(in_out);
  for (int i = 0; i < *count; ++i) b[i] = bf16(Combine{}(a[i], b[i]));
}

// Made once per process and never freed: MPI_Finalize takes them along.
template <class Combine>
MPI_Op bf16_op() {
  static const MPI_Op op = [] {
    MPI_Op made = MPI_OP_NULL;
    check_mpi(MPI_Op_create(reduce_bf16<Combine>, 1, &made), "MPI_Op_create");
    return made;
  }();
  return op;
}

// f16 and F8_E4M3 are met in files only; nothing computes with them.
bool is_computable(Dtype dtype) { return dtype != Dtype::f16 && dtype != Dtype::f8_e4m3; }

// sum[i] = parts[0][i] + parts[1][i] + ..., in this order.
template <class T, class Sum>
void add_in_order(const std::vector<const std::byte*>& parts, int count, Sum* sum) {
  const T* first = reinterpret_cast<const T*>(parts.front());
  std::copy(first, first + count, sum);
  for (std::size_t p = 1; p < parts.size(); ++p) {
    const T* part = reinterpret_cast<const T*>(parts[p]);
    for (int i = 0; i < count; ++i) sum[i] = static_cast<Sum>(sum[i] + static_cast<Sum>(part[i]));
  }
}

template <class T>
void add_parts(const std::vector<const std::byte*>& parts, int count, std::byte* result) {
  add_in_order<T>(parts, count, reinterpret_cast<T*>(result));
}

void add_bf16_parts(const std::vector<const std::byte*>& parts, int count, std::byte* result) {
  std::vector<float> sum(static_cast<std::size_t>(count));
  add_in_order<bf16>(parts, count, sum.data());
  std::copy(sum.begin(), sum.end(), reinterpret_cast<bf16*>(result));
}

void add_parts(const std::vector<const std::byte*>& parts, int count, Dtype dtype,
               std::byte* result) {
  switch (dtype) {
    case Dtype::u8: return add_parts<std::uint8_t>(parts, count, result);
    case Dtype::i32: return add_parts<std::int32_t>(parts, count, result);
    case Dtype::i64: return add_parts<std::int64_t>(parts, count, result);
    case Dtype::u64: return add_parts<std::uint64_t>(parts, count, result);
    case Dtype::bf16: return add_bf16_parts(parts, count, result);
    case Dtype::f32: return add_parts<float>(parts, count, result);
    case Dtype::f64: return add_parts<double>(parts, count, result);
    case Dtype::f16:
    case Dtype::f8_e4m3: break;
  }
  TESSERA_EXPECT(is_computable(dtype));
}

/// Whether all are complete. One by one, so that an error is that of the request that met it.
bool test_all(std::vector<MPI_Request>& requests, std::vector<MPI_Status>& statuses) {
  statuses.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i] == MPI_REQUEST_NULL) continue;
    int done = 0;
    check_mpi(MPI_Test(&requests[i], &done, &statuses[i]), "MPI_Test");
    if (done == 0) return false;
  }
  return true;
}

}  // namespace

MPI_Datatype mpi_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8:
    case Dtype::f8_e4m3: return MPI_UINT8_T;
    case Dtype::i32: return MPI_INT32_T;
    case Dtype::i64: return MPI_INT64_T;
    case Dtype::u64: return MPI_UINT64_T;
    case Dtype::f16:
    case Dtype::bf16: return MPI_UINT16_T;
    case Dtype::f32: return MPI_FLOAT;
    case Dtype::f64: return MPI_DOUBLE;
  }
  return MPI_DATATYPE_NULL;
}

MPI_Op mpi_op(ReduceOp op, Dtype dtype) {
  TESSERA_EXPECT(is_computable(dtype));
  const bool is_bf16 = dtype == Dtype::bf16;
  switch (op) {
    case ReduceOp::sum: return is_bf16 ? bf16_op<Add>() : MPI_SUM;
    case ReduceOp::max: return is_bf16 ? bf16_op<Larger>() : MPI_MAX;
    case ReduceOp::min: return is_bf16 ? bf16_op<Smaller>() : MPI_MIN;
  }
  return MPI_OP_NULL;
}

bool Calls::test() { return test_all(requests_, statuses_); }

void Exchange::receive(void* data, int count, Dtype dtype, int source) {
  TESSERA_EXPECT(requests_.size() == receives_.size());
  receives_.push_back({count, source, mpi_type(dtype)});
  check_mpi(
      MPI_Irecv(data, count, mpi_type(dtype), source, group_.tag, group_.comm, &next_request()),
      "MPI_Irecv");
}

void Exchange::send(const void* data, int count, Dtype dtype, int target) {
  check_mpi(
      MPI_Isend(data, count, mpi_type(dtype), target, group_.tag, group_.comm, &next_request()),
      "MPI_Isend");
}

bool Exchange::test() {
  if (requests_.empty()) return true;
  if (!test_all(requests_, statuses_)) return false;
  check_lengths();
  requests_.clear();
  receives_.clear();
  return true;
}

void Exchange::check_lengths() const {
  for (std::size_t i = 0; i < receives_.size(); ++i) {
    const auto& [expected, source, type] = receives_[i];
    int count = 0;
    check_mpi(MPI_Get_count(&statuses_[i], type, &count), "MPI_Get_count");
    if (count == expected) continue;
    fail(ErrorKind::communication,
         "rank {} sent {} elements where {} were expected (the ranks disagree on the counts)",
         source, count, expected);
  }
}

ReduceScatter::ReduceScatter(MpiGroup group, const void* all, void* mine, std::int64_t count,
                             Dtype dtype, std::int64_t max_count)
    : group_(group),
      all_(static_cast<const std::byte*>(all)),
      mine_(static_cast<std::byte*>(mine)),
      count_(count),
      dtype_(dtype) {
  constexpr std::int64_t buffer_bytes = std::int64_t{4} << 20, shortest = 1024;
  const std::int64_t others = std::max(1, group.size - 1);
  const std::int64_t fitting = buffer_bytes / (others * static_cast<std::int64_t>(size_of(dtype)));
  piece_count_ = std::min(std::max(fitting, shortest), max_count);
  num_pieces_ = (count + piece_count_ - 1) / piece_count_;
  const auto buffer =
      static_cast<std::size_t>(others * std::min(piece_count_, count)) * size_of(dtype);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(2, num_pieces_); ++i) {
    rounds_.push_back({Exchange(group), std::vector<std::byte>(buffer)});
    post(num_posted_++);
  }
}

// MPI still writes into the buffers of an operation that was given up.
ReduceScatter::~ReduceScatter() {
  if (num_added_ < num_pieces_) new std::vector<Round>(std::move(rounds_));
}

int ReduceScatter::piece_size(std::int64_t piece) const {
  return static_cast<int>(std::min(piece_count_, count_ - piece_begin(piece)));
}

const std::byte* ReduceScatter::own_part(int owner, std::int64_t piece) const {
  return all_ + (owner * count_ + piece_begin(piece)) * static_cast<std::int64_t>(size_of(dtype_));
}

// Ranks begin with their right neighbour, so that not all send to rank 0 first.
void ReduceScatter::post(std::int64_t piece) {
  Round& round = rounds_[static_cast<std::size_t>(piece % 2)];
  const int n = piece_size(piece);
  std::byte* to = round.received.data();
  for (int r = 0; r < group_.size; ++r) {
    if (r == group_.rank) continue;
    round.exchange.receive(to, n, dtype_, r);
    to += static_cast<std::size_t>(n) * size_of(dtype_);
  }
  for (int step = 1; step < group_.size; ++step) {
    const int target = (group_.rank + step) % group_.size;
    round.exchange.send(own_part(target, piece), n, dtype_, target);
  }
}

void ReduceScatter::add(std::int64_t piece) {
  const std::byte* received = rounds_[static_cast<std::size_t>(piece % 2)].received.data();
  const int n = piece_size(piece);
  std::vector<const std::byte*> parts;
  for (int r = 0; r < group_.size; ++r) {
    parts.push_back(r == group_.rank ? own_part(r, piece) : received);
    if (r != group_.rank) received += static_cast<std::size_t>(n) * size_of(dtype_);
  }
  add_parts(parts, n, dtype_,
            mine_ + piece_begin(piece) * static_cast<std::int64_t>(size_of(dtype_)));
}

bool ReduceScatter::test() {
  while (num_added_ < num_pieces_) {
    if (!rounds_[static_cast<std::size_t>(num_added_ % 2)].exchange.test()) return false;
    add(num_added_++);
    if (num_posted_ < num_pieces_) post(num_posted_++);
  }
  return true;
}

}  // namespace tessera::comm
