// SPDX-License-Identifier: Apache-2.0
#include "tensor_writer.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "narrow.hpp"
#include "transpose.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t buffer_bytes = 16 << 20;

}  // namespace

TensorWriter::TensorWriter(const ExportPlan& plan, std::filesystem::path directory, int world_rank)
    : plan_(plan),
      directory_(std::move(directory)),
      world_rank_(world_rank),
      files_(plan.files.size()),
      written_bytes_(plan.tensors.size()),
      buffer_(new std::byte[buffer_bytes]()) {}

void TensorWriter::write(const Slice& slice, std::span<const float> values,
                         std::span<const std::uint8_t> scales) {
  const auto found = plan_.parameters.find(slice.parameter->name);
  if (found == plan_.parameters.end() || found->second.shape != slice.parameter->shape ||
      std::ssize(values) != slice.size())
    fail(ErrorKind::internal, "'{}' {} [{}, {}) with {} values was not announced for export",
         slice.parameter->name, to_string(slice.parameter->shape), slice.begin, slice.end,
         values.size());
  const ExportParameter& parameter = found->second;
  if (parameter.mxfp4) return write_mxfp4(parameter.parts[0], slice, values, scales);
  if (!parameter.transposed) {
    for (const ExportPart& part : parameter.parts) write_plain(part, slice, values);
    return;
  }
  const std::int64_t size = parameter.shape[1] * parameter.shape[2];
  for (std::int64_t k = slice.begin; k < slice.end;) {
    const std::int64_t expert = k / size, end = std::min(slice.end, (expert + 1) * size);
    write_turned(parameter.parts[0].tensor, {expert, k - expert * size, end - expert * size},
                 values.data() + (k - slice.begin));
    k = end;
  }
}

void TensorWriter::write_plain(const ExportPart& part, const Slice& slice,
                               std::span<const float> values) {
  const auto width = std::int64_t(size_of(plan_.tensors[part.tensor].dtype));
  const std::int64_t end = std::min(slice.end, part.begin + part.size), step = buffer_bytes / width;
  for (std::int64_t k = std::max(slice.begin, part.begin); k < end; k += step) {
    const std::int64_t count = std::min(step, end - k);
    convert(part.tensor, values.data() + (k - slice.begin), count, buffer_.get());
    put(part.tensor, (part.tensor_begin + k - part.begin) * width, buffer_.get(), count * width);
  }
}

// The tensor has [in][out] where the parameter has [out][in]: as many of its rows at a time as half
// the buffer holds, turned into the other half.
void TensorWriter::write_turned(std::size_t tensor, const ExpertRange& range, const float* values) {
  const Shape& shape = plan_.tensors[tensor].shape;
  const std::int64_t num_rows = shape[1];
  const std::int64_t num_columns = (range.end - 1) / num_rows + 1 - range.begin / num_rows;
  const auto width = std::int64_t(size_of(plan_.tensors[tensor].dtype));
  const std::int64_t step = buffer_bytes / 2 / (num_columns * width);
  if (step == 0)
    fail(ErrorKind::internal, "'{}': a row of {} elements does not fit the buffer",
         plan_.tensors[tensor].name, num_columns);
  for (std::int64_t row = 0; row < num_rows; row += step)
    write_columns(tensor, range, row, std::min(row + step, num_rows), values);
}

// Of the rows [first_row, end_row) of the tensor, the columns that the range has: all but the edges
// of its first and last column.
void TensorWriter::write_columns(std::size_t tensor, const ExpertRange& range,
                                 std::int64_t first_row, std::int64_t end_row,
                                 const float* values) {
  const ExportTensor& info = plan_.tensors[tensor];
  const std::int64_t num_rows = info.shape[1], row_size = info.shape[2];
  const auto width = std::int64_t(size_of(info.dtype));
  const std::int64_t first = range.begin / num_rows, last = (range.end - 1) / num_rows;
  const std::int64_t top = range.begin % num_rows, bottom = (range.end - 1) % num_rows + 1;
  const std::int64_t columns = last + 1 - first, rows = end_row - first_row;
  std::byte* const turned = buffer_.get() + buffer_bytes / 2;
  for (std::int64_t column = first; column <= last; ++column) {
    const std::int64_t from = std::max(first_row, column == first ? top : 0);
    const std::int64_t to = std::min(end_row, column == last ? bottom : num_rows);
    if (from >= to) continue;
    convert(tensor, values + (column * num_rows + from - range.begin), to - from,
            buffer_.get() + ((column - first) * rows + from - first_row) * width);
  }
  transpose(buffer_.get(), columns, rows, rows, width, turned, columns);
  const std::int64_t tensor_row = range.expert * num_rows + first_row;
  const bool is_whole = range.begin == 0 && range.end == num_rows * row_size;
  if (is_whole) return put(tensor, tensor_row * row_size * width, turned, rows * columns * width);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t begin = first + (first_row + row < top ? 1 : 0);
    const std::int64_t end = last + (first_row + row < bottom ? 1 : 0);
    if (begin < end)
      put(tensor, ((tensor_row + row) * row_size + begin) * width,
          turned + (row * columns + begin - first) * width, (end - begin) * width);
  }
}

void TensorWriter::write_mxfp4(const ExportPart& part, const Slice& slice,
                               std::span<const float> values,
                               std::span<const std::uint8_t> old_scales) {
  if (slice.begin % mxfp4_block_elements != 0 || slice.size() % mxfp4_block_elements != 0 ||
      (!old_scales.empty() && std::ssize(old_scales) * mxfp4_block_elements != slice.size()))
    fail(ErrorKind::internal, "'{}' [{}, {}) with {} scales is not made of whole MXFP4 blocks",
         slice.parameter->name, slice.begin, slice.end, old_scales.size());
  const std::int64_t num_blocks = slice.size() / mxfp4_block_elements;
  const std::int64_t first = slice.begin / mxfp4_block_elements;
  constexpr std::int64_t step = buffer_bytes / (mxfp4_block_bytes + 1);
  auto* const blocks = reinterpret_cast<std::uint8_t*>(buffer_.get());
  std::uint8_t* const scales = blocks + step * mxfp4_block_bytes;
  for (std::int64_t k = 0; k < num_blocks; k += step) {
    const auto count = std::size_t(std::min(step, num_blocks - k));
    const auto kept = old_scales.empty() ? old_scales : old_scales.subspan(std::size_t(k), count);
    try {
      mxfp4_encode(
          values.subspan(std::size_t(k * mxfp4_block_elements), count * mxfp4_block_elements), kept,
          {blocks, count * mxfp4_block_bytes}, {scales, count});
    } catch (const Error& error) {
      fail(error.kind(), "'{}': {}", slice.parameter->name, error.what());
    }
    const auto bytes_of = [](const std::uint8_t* p) {
      return reinterpret_cast<const std::byte*>(p);
    };
    put(part.tensor, (first + k) * mxfp4_block_bytes, bytes_of(blocks),
        std::int64_t(count) * mxfp4_block_bytes);
    put(part.tensor + 1, first + k, bytes_of(scales), std::int64_t(count));
  }
}

void TensorWriter::convert(std::size_t tensor, const float* from, std::int64_t count,
                           std::byte* to) const {
  const ExportTensor& info = plan_.tensors[tensor];
  const std::int64_t bad = narrow(info.dtype, from, count, to);
  if (bad >= 0)
    fail(ErrorKind::numeric,
         "'{}' is to be written as {}, which cannot hold its value {:g} (it would become infinite) "
         "export it as bf16 or f32",
         info.name, to_string(info.dtype), from[bad]);
}

void TensorWriter::put(std::size_t tensor, std::int64_t offset_bytes, const std::byte* bytes,
                       std::int64_t num_bytes) {
  const ExportTensor& info = plan_.tensors[tensor];
  auto& file = files_[info.file];
  if (!file) file.emplace(directory_ / plan_.files[info.file].name, world_rank_);
  file->write_at(info.offset_bytes + offset_bytes, {bytes, std::size_t(num_bytes)});
  written_bytes_[tensor] += num_bytes;
}

void TensorWriter::flush() const {
  for (const auto& file : files_)
    if (file) file->flush();
}

}  // namespace tessera::checkpoint
