// SPDX-License-Identifier: Apache-2.0
// Columns in memory-mapped files: .npy and flat streams. Ranks of one node share the page cache.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string_view>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "tessera/trainer/npy.hpp"
#include "token_data_column.hpp"

namespace tessera::trainer {
namespace {

[[noreturn]] void cannot(const char* action, const std::filesystem::path& path) {
  fail(ErrorKind::file, "cannot {} {}: {}", action, path.string(), std::strerror(errno));
}

/// A file's bytes, read-only, for as long as the object lives.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) cannot("open", path);
    struct stat status {};
    const bool known = ::fstat(descriptor, &status) == 0;
    num_bytes_ = known ? static_cast<std::size_t>(status.st_size) : 0;
    if (known && num_bytes_ > 0) {
      address_ = ::mmap(nullptr, num_bytes_, PROT_READ, MAP_SHARED, descriptor, 0);
    }
    const int saved = errno;
    ::close(descriptor);
    errno = saved;
    if (!known || address_ == MAP_FAILED) cannot("map", path);
  }
  ~MappedFile() {
    if (num_bytes_ > 0) ::munmap(address_, num_bytes_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(address_), num_bytes_};
  }

 private:
  void* address_ = nullptr;
  std::size_t num_bytes_ = 0;
};

// The file promises no alignment, so elements are copied out.
template <class T>
void widen(const std::byte* source, std::span<std::int64_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, source + i * sizeof(T), sizeof(T));
    out[i] = static_cast<std::int64_t>(value);
  }
}

using Widen = void (*)(const std::byte*, std::span<std::int64_t>);

Widen widen_function(int item_bytes, bool is_signed) {
  switch (item_bytes) {
    case 1: return is_signed ? widen<std::int8_t> : widen<std::uint8_t>;
    case 2: return is_signed ? widen<std::int16_t> : widen<std::uint16_t>;
    case 4: return is_signed ? widen<std::int32_t> : widen<std::uint32_t>;
    default: return is_signed ? widen<std::int64_t> : widen<std::uint64_t>;
  }
}

class MappedColumn : public TokenColumn {
 public:
  explicit MappedColumn(const std::filesystem::path& path) : file_(path) {
    origin_ = path.string();
  }

  void use_npy(ColumnRole role) {
    const NpyHeader header = parse_npy_header(file_.bytes(), origin_);
    if (header.is_boolean && role != ColumnRole::mask) {
      fail(ErrorKind::format, "{}: elements are booleans, {} are integers", origin_,
           role_name(role));
    }
    set(header.shape, header.data_offset, header.item_bytes, header.is_signed);
  }

  void use_flat(int item_bytes) {
    const auto num_bytes = static_cast<std::int64_t>(file_.bytes().size());
    if (num_bytes % item_bytes != 0) {
      fail(ErrorKind::format,
           "{}: {} bytes are no whole number of {}-byte token ids; is the dtype right?", origin_,
           num_bytes, item_bytes);
    }
    set({num_bytes / item_bytes}, 0, item_bytes, false);
  }

  void read(std::int64_t begin, std::span<std::int64_t> out) const override {
    TESSERA_EXPECT(begin >= 0 &&
                   begin + static_cast<std::int64_t>(out.size()) <= num_elements(shape_));
    widen_(file_.bytes().data() + data_offset_ + begin * item_bytes_, out);
  }

 private:
  void set(Shape shape, std::int64_t data_offset, int item_bytes, bool is_signed) {
    shape_ = std::move(shape);
    data_offset_ = data_offset;
    item_bytes_ = item_bytes;
    widen_ = widen_function(item_bytes, is_signed);
    element_name_ = fmt::format("{}{}", is_signed ? 'i' : 'u', 8 * item_bytes);
  }

  MappedFile file_;
  std::int64_t data_offset_ = 0;
  int item_bytes_ = 1;
  Widen widen_ = nullptr;
};

std::string first_bytes(const std::filesystem::path& path) {
  std::array<char, 8> start{};
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    if (file) errno = EISDIR;
    cannot("open", path);
  }
  file.read(start.data(), start.size());
  return {start.data(), static_cast<std::size_t>(file.gcount())};
}

int flat_item_bytes(const std::filesystem::path& path, FlatDtype dtype) {
  if (dtype == FlatDtype::by_extension) return path.extension() == ".u32" ? 4 : 2;
  return dtype == FlatDtype::u32 ? 4 : 2;
}

}  // namespace

const char* role_name(ColumnRole role) {
  switch (role) {
    case ColumnRole::tokens: return "tokens";
    case ColumnRole::labels: return "labels";
    case ColumnRole::mask: return "mask";
  }
  return "tokens";
}

std::unique_ptr<TokenColumn> open_token_column(const std::filesystem::path& path,
                                               const std::string& dataset, FlatDtype flat_dtype,
                                               ColumnRole role) {
  const std::string start = first_bytes(path);
  const std::string extension = path.extension().string();
  if (start == "\x89HDF\r\n\x1a\n" || extension == ".h5" || extension == ".hdf5") {
    return open_hdf5_column(path, dataset, role);
  }
  if (!dataset.empty()) {
    fail(ErrorKind::usage, "{} is not an HDF5 file, so it has no dataset '{}'", path.string(),
         dataset);
  }
  auto column = std::make_unique<MappedColumn>(path);
  if (start.starts_with("\x93NUMPY") || extension == ".npy") {
    column->use_npy(role);
  } else {
    column->use_flat(flat_item_bytes(path, flat_dtype));
  }
  return column;
}

}  // namespace tessera::trainer
