// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <tuple>

#include "base/error.hpp"
#include "input_file.hpp"
#include "strict_json.hpp"

namespace tessera::checkpoint {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr const char* damaged = "the file is damaged or incomplete; download or export it again";

/// Names the tensor that an error is about.
struct Where {
  const std::string& file;
  const std::string& tensor;

  [[noreturn]] void refuse(const std::string& reason) const {
    fail(ErrorKind::format, "{}: tensor '{}': {} (its values cannot be located) {}", file, tensor,
         reason, damaged);
  }
};

Dtype parse_dtype(const Where& where, const json& entry) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string()) where.refuse("has no dtype");
  const auto& text = found->get_ref<const std::string&>();
  constexpr std::array known = {std::pair{"F32", Dtype::f32},        std::pair{"BF16", Dtype::bf16},
                                std::pair{"F16", Dtype::f16},        std::pair{"F64", Dtype::f64},
                                std::pair{"U8", Dtype::u8},          std::pair{"I32", Dtype::i32},
                                std::pair{"I64", Dtype::i64},        std::pair{"U64", Dtype::u64},
                                std::pair{"F8_E4M3", Dtype::f8_e4m3}};
  for (const auto& [name, dtype] : known)
    if (text == name) return dtype;
  fail(ErrorKind::format,
       "{}: tensor '{}': dtype {} is not supported (weights are read from F32, BF16, F16, F64, "
       "MXFP4 and F8_E4M3) "
       "convert the checkpoint, e.g. by loading it with dtype=bfloat16 and save_pretrained",
       where.file, where.tensor, text);
}

/// A JSON array of whole numbers from 0 to 2^63 - 1.
std::vector<std::int64_t> parse_numbers(const Where& where, const json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) where.refuse(fmt::format("has no {}", key));
  std::vector<std::int64_t> numbers;
  for (const json& item : *found) {
    constexpr auto largest = std::uint64_t(std::numeric_limits<std::int64_t>::max());
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > largest)
      where.refuse(fmt::format("{} has the entry {}, which is not a whole number from 0 to 2^63-1",
                               key, item.dump(-1, ' ', true, json::error_handler_t::replace)));
    numbers.push_back(item.get<std::int64_t>());
  }
  return numbers;
}

/// Bytes that shape and dtype need; refuses products that do not fit.
std::int64_t needed_bytes(const Where& where, const Shape& shape, Dtype dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes))
      where.refuse(fmt::format("shape {} has more bytes than fit in 63 bits", to_string(shape)));
  return bytes;
}

SafetensorsTensor parse_tensor(const std::string& file, const std::string& name,
                               const json& entry) {
  const Where where{file, name};
  if (!entry.is_object()) where.refuse("its entry is not a JSON object");
  SafetensorsTensor tensor{name, parse_dtype(where, entry), parse_numbers(where, entry, "shape")};
  const auto offsets = parse_numbers(where, entry, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1])
    where.refuse(fmt::format("data_offsets {} are not [begin, end]", to_string(offsets)));
  tensor.begin_bytes = offsets[0];
  tensor.end_bytes = offsets[1];
  const std::int64_t needed = needed_bytes(where, tensor.shape, tensor.dtype);
  if (needed != tensor.end_bytes - tensor.begin_bytes)
    where.refuse(fmt::format("shape {} of {} needs {} bytes but data_offsets {} hold {}",
                             to_string(tensor.shape), to_string(tensor.dtype), needed,
                             to_string(offsets), tensor.end_bytes - tensor.begin_bytes));
  return tensor;
}

/// The tensors, sorted by offset, must fill [0, data_bytes).
void require_contiguous(const std::string& file, std::span<const SafetensorsTensor> tensors,
                        std::int64_t data_bytes) {
  std::int64_t expected = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    const Where where{file, tensor.name};
    if (tensor.end_bytes > data_bytes)
      where.refuse(fmt::format("ends at byte {} of the data but the file has only {} bytes of data",
                               tensor.end_bytes, data_bytes));
    if (tensor.begin_bytes < expected)
      where.refuse(fmt::format("begins at byte {} inside the tensor before it, which ends at {}",
                               tensor.begin_bytes, expected));
    if (tensor.begin_bytes > expected)
      where.refuse(fmt::format("begins at byte {} and leaves a hole after byte {}",
                               tensor.begin_bytes, expected));
    expected = tensor.end_bytes;
  }
  if (expected != data_bytes)
    fail(ErrorKind::format,
         "{}: the tensors end at byte {} of the data but the file has {} bytes of data (header and "
         "data do not belong together) {}",
         file, expected, data_bytes, damaged);
}

std::uint64_t read_header_length(const InputFile& input, const std::string& file) {
  std::array<std::byte, 8> bytes{};
  const auto size = static_cast<std::uint64_t>(input.size_bytes());
  if (size < bytes.size())
    fail(ErrorKind::format, "{}: {} bytes are too few for a safetensors file; {}", file, size,
         damaged);
  input.read_at(0, bytes);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), bytes.size());
  if (length > size - bytes.size())
    fail(ErrorKind::format,
         "{}: its header is said to be {} bytes long but the file has only {} (the tensors cannot "
         "be located) {}",
         file, length, size, damaged);
  if (length > max_safetensors_header_bytes)
    fail(ErrorKind::format, "{}: its header of {} bytes is longer than the limit of {}", file,
         length, max_safetensors_header_bytes);
  return length;
}

}  // namespace

std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view header_json,
                                                        std::uint64_t data_bytes,
                                                        const std::string& file) {
  const json header = parse_strict_json(header_json, file + " (header)");
  if (data_bytes > std::uint64_t(std::numeric_limits<std::int64_t>::max()))
    fail(ErrorKind::format, "{}: {} bytes of data are more than any file has", file, data_bytes);
  std::vector<SafetensorsTensor> tensors;
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__") tensors.push_back(parse_tensor(file, name, entry));
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin_bytes, a.end_bytes) < std::tie(b.begin_bytes, b.end_bytes);
  });
  require_contiguous(file, tensors, static_cast<std::int64_t>(data_bytes));
  return tensors;
}

SafetensorsHeader read_safetensors_header(const std::filesystem::path& path, int world_rank) {
  const InputFile input(path, world_rank);
  const std::string file = path.string();
  const std::uint64_t length = read_header_length(input, file);
  std::string text(length, '\0');
  input.read_at(8, std::as_writable_bytes(std::span(text)));
  SafetensorsHeader header;
  header.data_offset_bytes = static_cast<std::int64_t>(8 + length);
  const auto data_bytes = static_cast<std::uint64_t>(input.size_bytes() - header.data_offset_bytes);
  header.tensors = parse_safetensors_header(text, data_bytes, file);
  return header;
}

}  // namespace tessera::checkpoint
