// SPDX-License-Identifier: Apache-2.0
// How a checkpoint encodes a stored part of a parameter, found from headers alone: as plain
// floating-point numbers, as MXFP4 or as FP8 with factors for blocks of 128 x 128.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

enum class Encoding {
  plain,  ///< f32, bf16, f16 or f64
  /// `<part>_blocks` u8 [E, out, in / 32, 16] and `<part>_scales` u8 [E, out, in / 32] (or
  /// `.blocks`, `.scales`). Always in Tessera's order, whatever the plain tensor's.
  mxfp4,
  /// `<part>` F8_E4M3 [out, in] and `<part>_scale_inv` f32, bf16 or f16 [out / 128, in / 128],
  /// rounded up: value = f8 * scale_inv, rounded to bf16 (as DeepSeek's own conversion does).
  fp8,
};

inline constexpr std::int64_t fp8_block = 128;  ///< rows and columns that share a factor

/// The tensors that hold one stored part.
struct EncodedPart {
  Encoding encoding = Encoding::plain;
  const TensorInfo* values = nullptr;    ///< the tensor or the blocks
  const TensorInfo* scales = nullptr;    ///< of MXFP4 or FP8
  std::vector<const TensorInfo*> found;  ///< all that belong to it, in order or not
  /// Why it cannot be read, beginning with the name of a tensor that is wrong or missing. Empty if
  /// it can, or if nothing of it is there.
  std::string problem;

  bool is_missing() const { return found.empty(); }
  bool is_readable() const { return !found.empty() && problem.empty(); }
};

/// `part` is one of source.parts(parameter). The encoding, and with it the orientation, follows
/// from names and element types, never from the shape. local.
EncodedPart find_part(const Source& source, const Parameter& parameter, const StoredPart& part);

/// Bytes of the file that hold the part's elements, with the scales that they need. @pre readable.
/// local.
std::int64_t encoded_bytes(const EncodedPart& encoded, const StoredPart& part);

/// "bf16", "mxfp4", "fp8", or several of them joined with "+" where parts differ; "" if a part is
/// missing or unreadable. local.
std::string describe_encoding(const Source& source, const Parameter& parameter);

}  // namespace tessera::checkpoint
