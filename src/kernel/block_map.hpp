// SPDX-License-Identifier: Apache-2.0
// Which bytes of a range are taken: bookkeeping alone, without memory. So the same placement serves
// an arena and a prediction of how large that arena will become.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>

namespace tessera::kernel {

/// A block goes into the smallest hole between others that holds it (of equal ones the first), and
/// only where there is none behind the last. So large holes are left for large blocks, and where
/// blocks go does not depend on how far the range has ever reached: the same sequence of blocks
/// needs no more the second time.
class BlockMap {
 public:
  /// Blocks begin and end at multiples of this.
  static constexpr std::int64_t granule_bytes = 256;
  static std::int64_t rounded(std::int64_t bytes) {
    return (bytes + granule_bytes - 1) / granule_bytes * granule_bytes;
  }

  /// Where a block begins; empty if it would end behind `limit_bytes`. local.
  std::optional<std::int64_t> take(
      std::int64_t bytes, std::int64_t limit_bytes = std::numeric_limits<std::int64_t>::max());
  /// @pre take() gave that block. local.
  void give_back(std::int64_t offset, std::int64_t bytes);

  std::int64_t size_bytes() const { return size_bytes_; }  ///< as far as blocks have ever reached
  std::int64_t used_bytes() const { return used_bytes_; }  ///< taken now

 private:
  std::map<std::int64_t, std::int64_t> holes_;  // offset -> bytes, none at the end
  std::int64_t end_ = 0;                        // of the last block
  std::int64_t size_bytes_ = 0;
  std::int64_t used_bytes_ = 0;
};

}  // namespace tessera::kernel
