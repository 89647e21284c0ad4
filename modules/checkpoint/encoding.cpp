// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/encoding.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/contract.hpp"
#include "tessera/checkpoint/mxfp4.hpp"

namespace tessera::checkpoint {
namespace {

bool is_plain_float(Dtype dtype) {
  return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16 || dtype == Dtype::f64;
}

/// "name: checkpoint has bf16 [8, 4], the model needs [8, 5]"
std::string difference(const TensorInfo& tensor, const char* needed_type, const Shape& needed) {
  return fmt::format("{}: checkpoint has {} {}, the model needs {}{}", tensor.name,
                     to_string(tensor.dtype), to_string(tensor.shape), needed_type,
                     to_string(needed));
}

std::string absence(const std::string& absent, const TensorInfo& present, const char* why) {
  return fmt::format("{}: missing though {} is there ({})", absent, present.name, why);
}

EncodedPart describe_plain(const TensorInfo& tensor, const StoredPart& part) {
  EncodedPart result{Encoding::plain, &tensor, nullptr, {&tensor}, {}};
  if (!is_plain_float(tensor.dtype))
    result.problem = difference(tensor, "f32, bf16, f16 or f64 ", part.shape);
  else if (tensor.shape != part.shape)
    result.problem = difference(tensor, "", part.shape);
  return result;
}

EncodedPart describe_fp8(const Source& source, const TensorInfo& tensor, const StoredPart& part) {
  EncodedPart result{Encoding::fp8, &tensor, nullptr, {&tensor}, {}};
  const std::string name = tensor.name + "_scale_inv";
  const TensorInfo* scales = source.find(name);
  if (scales != nullptr) result.found.push_back(scales);
  result.scales = scales;
  if (tensor.shape.size() != 2 || tensor.shape != part.shape) {
    result.problem =
        difference(tensor, part.shape.size() == 2 ? "" : "f32, bf16, f16 or f64 ", part.shape);
    return result;
  }
  const auto blocks = [](std::int64_t extent) { return (extent + fp8_block - 1) / fp8_block; };
  const Shape needed = {blocks(part.shape[0]), blocks(part.shape[1])};
  if (scales == nullptr)
    result.problem = absence(name, tensor, "FP8 weights mean nothing without their scales");
  else if (scales->dtype == Dtype::f64 || !is_plain_float(scales->dtype))
    result.problem = difference(*scales, "f32, bf16 or f16 ", needed);
  else if (scales->shape != needed)
    result.problem = difference(*scales, "", needed);
  return result;
}

/// Factors of FP8 whose weight is not there.
EncodedPart find_lone_factors(const Source& source, const StoredPart& part) {
  const TensorInfo* scales = source.find(part.tensor + "_scale_inv");
  if (scales == nullptr) return {};
  return {Encoding::fp8,
          nullptr,
          scales,
          {scales},
          absence(part.tensor, *scales, "FP8 factors need their weights")};
}

std::string mxfp4_problem(const Parameter& parameter, const TensorInfo& blocks,
                          const TensorInfo& scales) {
  const Shape& shape = parameter.shape;
  if (shape.size() != 3 || shape[2] % mxfp4_block_elements != 0)
    return fmt::format("{}: MXFP4 has blocks of {} along the input, but the model needs {}",
                       blocks.name, mxfp4_block_elements, to_string(parameter.checkpoint_shape()));
  const Shape scales_shape = {shape[0], shape[1], shape[2] / mxfp4_block_elements};
  Shape blocks_shape = scales_shape;
  blocks_shape.push_back(mxfp4_block_bytes);
  if (blocks.dtype != Dtype::u8 || blocks.shape != blocks_shape)
    return difference(blocks, "u8 ", blocks_shape);
  if (scales.dtype != Dtype::u8 || scales.shape != scales_shape)
    return difference(scales, "u8 ", scales_shape);
  return {};
}

/// `stem`: the part's name with the separator of "blocks" and "scales".
EncodedPart find_mxfp4(const Source& source, const Parameter& parameter, const std::string& stem) {
  const TensorInfo* blocks = source.find(stem + "blocks");
  const TensorInfo* scales = source.find(stem + "scales");
  EncodedPart result{Encoding::mxfp4, blocks, scales, {}, {}};
  for (const TensorInfo* tensor : {blocks, scales})
    if (tensor != nullptr) result.found.push_back(tensor);
  if (result.found.empty()) return result;
  constexpr const char* both = "MXFP4 weights need both";
  if (scales == nullptr)
    result.problem = absence(stem + "scales", *blocks, both);
  else if (blocks == nullptr)
    result.problem = absence(stem + "blocks", *scales, both);
  else
    result.problem = mxfp4_problem(parameter, *blocks, *scales);
  return result;
}

EncodedPart ambiguous(std::vector<EncodedPart> candidates) {
  EncodedPart result = std::move(candidates.front());
  for (std::size_t k = 1; k < candidates.size(); ++k) {
    if (k == 1)
      result.problem = fmt::format(
          "{}: ambiguous, the checkpoint has {} too (which of the two is the weight is unknown)",
          result.found.front()->name, candidates[k].found.front()->name);
    result.found.insert(result.found.end(), candidates[k].found.begin(), candidates[k].found.end());
  }
  return result;
}

}  // namespace

EncodedPart find_part(const Source& source, const Parameter& parameter, const StoredPart& part) {
  std::vector<EncodedPart> candidates;
  if (const TensorInfo* tensor = source.find(part.tensor))
    candidates.push_back(tensor->dtype == Dtype::f8_e4m3 ? describe_fp8(source, *tensor, part)
                                                         : describe_plain(*tensor, part));
  if (parameter.may_be_mxfp4)
    for (const char* separator : {"_", "."}) {
      EncodedPart found = find_mxfp4(source, parameter, part.tensor + separator);
      if (!found.is_missing()) candidates.push_back(std::move(found));
    }
  if (candidates.empty()) return find_lone_factors(source, part);
  return ambiguous(std::move(candidates));
}

std::int64_t encoded_bytes(const EncodedPart& encoded, const StoredPart& part) {
  TESSERA_EXPECT(encoded.is_readable());
  switch (encoded.encoding) {
    case Encoding::plain:
      return part.size * static_cast<std::int64_t>(size_of(encoded.values->dtype));
    case Encoding::mxfp4: return encoded.values->bytes() + encoded.scales->bytes();
    case Encoding::fp8: {
      const std::int64_t num_columns = encoded.values->shape[1];
      if (part.size == 0) return 0;
      const std::int64_t first = part.tensor_begin / num_columns / fp8_block;
      const std::int64_t last = (part.tensor_begin + part.size - 1) / num_columns / fp8_block;
      const auto scale_bytes = static_cast<std::int64_t>(size_of(encoded.scales->dtype));
      return part.size + (last - first + 1) * encoded.scales->shape[1] * scale_bytes;
    }
  }
  return 0;
}

std::string describe_encoding(const Source& source, const Parameter& parameter) {
  std::vector<std::string> names;
  for (const StoredPart& part : source.parts(parameter)) {
    const EncodedPart encoded = find_part(source, parameter, part);
    if (!encoded.is_readable()) return {};
    const std::string name = encoded.encoding == Encoding::mxfp4 ? "mxfp4"
                             : encoded.encoding == Encoding::fp8 ? "fp8"
                                                                 : to_string(encoded.values->dtype);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return fmt::format("{}", fmt::join(names, "+"));
}

}  // namespace tessera::checkpoint
