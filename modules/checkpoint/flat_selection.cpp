// SPDX-License-Identifier: Apache-2.0
// Cuts a flat range at the borders of each dimension, from the slowest to the fastest.
#include "tessera/checkpoint/flat_selection.hpp"

#include "base/contract.hpp"

namespace tessera::checkpoint {
namespace {

class RangeCutter {
 public:
  explicit RangeCutter(const Shape& shape) : shape_(shape), stride_(shape.size(), 1) {
    for (std::size_t d = shape.size() - 1; d > 0; --d) stride_[d - 1] = stride_[d] * shape[d];
  }

  /// The part [begin, end) of the sub-tensor at `prefix` (the leading indices, one per fixed
  /// dimension).
  void cut(std::vector<std::int64_t> prefix, std::int64_t begin, std::int64_t end) {
    const std::size_t d = prefix.size();
    const std::int64_t stride = stride_[d];
    std::int64_t first = begin / stride;
    const std::int64_t last = end / stride, head = begin % stride, tail = end % stride;
    if (first == last) return cut(extended(prefix, first), head, tail);
    if (head != 0) cut(extended(prefix, first++), head, stride);
    if (first < last) add_whole(prefix, first, last);
    if (tail != 0) cut(extended(prefix, last), 0, tail);
  }

  std::vector<Box> take() { return std::move(boxes_); }

 private:
  static std::vector<std::int64_t> extended(std::vector<std::int64_t> prefix, std::int64_t index) {
    prefix.push_back(index);
    return prefix;
  }

  void add_whole(const std::vector<std::int64_t>& prefix, std::int64_t first, std::int64_t last) {
    Box box{prefix, std::vector<std::int64_t>(prefix.size(), 1)};
    box.start.push_back(first);
    box.count.push_back(last - first);
    for (std::size_t d = box.start.size(); d < shape_.size(); ++d) {
      box.start.push_back(0);
      box.count.push_back(shape_[d]);
    }
    boxes_.push_back(std::move(box));
  }

  const Shape& shape_;
  std::vector<std::int64_t> stride_;
  std::vector<Box> boxes_;
};

}  // namespace

std::vector<Box> boxes_of_range(const Shape& shape, std::int64_t begin, std::int64_t end) {
  TESSERA_EXPECT(!shape.empty());
  TESSERA_EXPECT(0 <= begin && begin <= end && end <= num_elements(shape));
  if (begin == end) return {};
  RangeCutter cutter(shape);
  cutter.cut({}, begin, end);
  return cutter.take();
}

}  // namespace tessera::checkpoint
