// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/npy.hpp"

#include <cctype>
#include <charconv>
#include <cstring>
#include <string_view>

#include "base/error.hpp"

namespace tessera::trainer {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t max_header_bytes = 64 << 10;

/// Reads the Python literal `{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }`.
class DictionaryReader {
 public:
  DictionaryReader(std::string_view text, const std::string& origin)
      : text_(text), origin_(origin) {}

  NpyHeader read() {
    expect('{');
    while (!accept('}')) {
      read_entry();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!has_descr_ || !has_order_ || !has_shape_) broken();
    return header_;
  }

 private:
  [[noreturn]] void broken() const {
    fail(ErrorKind::format,
         "{}: the .npy header is not a dictionary of descr, fortran_order and shape", origin_);
  }
  void skip_space() {
    while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]))) {
      ++position_;
    }
  }
  bool accept(char c) {
    skip_space();
    if (position_ >= text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) broken();
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (!text_.substr(position_).starts_with(word)) return false;
    position_ += word.size();
    return true;
  }
  std::string_view read_quoted() {
    skip_space();
    if (position_ >= text_.size() || (text_[position_] != '\'' && text_[position_] != '"'))
      broken();
    const std::size_t end = text_.find(text_[position_], position_ + 1);
    if (end == std::string_view::npos) broken();
    const std::string_view inside = text_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    return inside;
  }

  void read_entry() {
    const std::string_view key = read_quoted();
    expect(':');
    if (key == "descr") {
      read_descr();
    } else if (key == "fortran_order") {
      read_order();
    } else if (key == "shape") {
      read_shape();
    } else {
      broken();
    }
  }

  void read_descr() {
    skip_space();
    if (position_ < text_.size() && text_[position_] == '[') {
      fail(ErrorKind::format, "{}: holds records, not token ids; save one array of integers",
           origin_);
    }
    const std::string_view descr = read_quoted();
    const bool sized =
        descr.size() == 3 && std::string_view("1248").find(descr[2]) != std::string_view::npos;
    const bool integer = sized && (descr[1] == 'i' || descr[1] == 'u');
    header_.is_boolean = descr == "|b1";
    if (!integer && !header_.is_boolean) {
      fail(ErrorKind::format,
           "{}: elements are '{}', token ids need an integer type of 8 to 64 bits; use "
           "x.astype('<i8')",
           origin_, descr);
    }
    if (descr[0] == '>') {
      fail(ErrorKind::format, "{}: elements are big endian ('{}'); use x.astype('<i8')", origin_,
           descr);
    }
    header_.item_bytes = descr[2] - '0';
    header_.is_signed = descr[1] == 'i';
    has_descr_ = true;
  }

  void read_order() {
    if (accept_word("True")) {
      fail(ErrorKind::format, "{}: is in Fortran order; save numpy.ascontiguousarray(x)", origin_);
    }
    if (!accept_word("False")) broken();
    has_order_ = true;
  }

  void read_shape() {
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t extent = 0;
      const char* begin = text_.data() + position_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0) broken();
      position_ += static_cast<std::size_t>(end - begin);
      header_.shape.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    has_shape_ = true;
  }

  std::string_view text_;
  const std::string& origin_;
  std::size_t position_ = 0;
  NpyHeader header_;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false;
};

std::size_t little_endian(std::span<const std::byte> bytes) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    value |= std::to_integer<std::size_t>(bytes[i]) << (8 * i);
  return value;
}

void check_size(const NpyHeader& header, std::size_t file_bytes, const std::string& origin) {
  std::int64_t needed = header.item_bytes;
  bool overflow = false;
  for (const std::int64_t extent : header.shape) {
    overflow = overflow || __builtin_mul_overflow(needed, extent, &needed);
  }
  const auto present = static_cast<std::int64_t>(file_bytes) - header.data_offset;
  if (overflow || needed != present) {
    fail(ErrorKind::format,
         "{}: shape {} needs {} bytes of data, the file has {}; it is cut or not one array", origin,
         to_string(header.shape), overflow ? std::string("more than 2^63") : std::to_string(needed),
         present);
  }
}

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> file, const std::string& origin) {
  if (file.size() < 10 || std::memcmp(file.data(), magic.data(), magic.size()) != 0) {
    fail(ErrorKind::format, "{}: is not a .npy file (it does not start with \\x93NUMPY)", origin);
  }
  const int version = std::to_integer<int>(file[6]);
  if (version < 1 || version > 3) {
    fail(ErrorKind::format, "{}: .npy version {} is not known (1 to 3 are)", origin, version);
  }
  const std::size_t prefix = version == 1 ? 10 : 12;
  const std::size_t header_bytes =
      file.size() < prefix ? max_header_bytes + 1 : little_endian(file.subspan(8, prefix - 8));
  if (header_bytes > max_header_bytes || header_bytes > file.size() - prefix) {
    fail(ErrorKind::format, "{}: the .npy header is longer than the file or 64 KiB", origin);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + prefix, header_bytes);
  NpyHeader header = DictionaryReader(text, origin).read();
  header.data_offset = static_cast<std::int64_t>(prefix + header_bytes);
  check_size(header, file.size(), origin);
  return header;
}

}  // namespace tessera::trainer
