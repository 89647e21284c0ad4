// SPDX-License-Identifier: Apache-2.0
// HDF5 identifiers that close themselves, and HDF5's error stack as tessera::Error. Not
// installed, since it needs HDF5's own header.
#pragma once

#include <fmt/format.h>
#include <hdf5.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace tessera {

/// Owns one HDF5 identifier. Closing is local, except of a file opened through MPI-IO (collective).
template <herr_t (*Close)(hid_t)>
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  explicit Hdf5Handle(hid_t id) : id_(id) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Hdf5Handle() { close(); }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  /// Negative when HDF5 could not close it; the identifier is gone in either case.
  herr_t close() {
    const hid_t id = std::exchange(id_, H5I_INVALID_HID);
    return id >= 0 ? Close(id) : 0;
  }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

using Hdf5File = Hdf5Handle<H5Fclose>;
using Hdf5Group = Hdf5Handle<H5Gclose>;
using Hdf5Dataset = Hdf5Handle<H5Dclose>;
using Hdf5Space = Hdf5Handle<H5Sclose>;
using Hdf5Type = Hdf5Handle<H5Tclose>;
using Hdf5Attribute = Hdf5Handle<H5Aclose>;
using Hdf5Properties = Hdf5Handle<H5Pclose>;

/// While it lives, HDF5 prints no errors of its own and loads no filter plugins (code named by a
/// file must not run). Both are process-wide, so a host program gets its own settings back. local.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLget_loading_state(&plugins_);
    H5PLset_loading_state(0);
  }
  ~QuietHdf5() {
    H5PLset_loading_state(plugins_);
    H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
  }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;

 private:
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
  unsigned plugins_ = 0;
};

/// What HDF5 says of its last failure: the innermost cause and what it prevented. local.
inline std::string hdf5_error_text() {
  const auto collect = [](unsigned, const H5E_error2_t* entry, void* data) -> herr_t {
    auto& texts = *static_cast<std::vector<std::string>*>(data);
    if (entry->desc != nullptr && *entry->desc != '\0') texts.emplace_back(entry->desc);
    return 0;
  };
  std::vector<std::string> texts;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &texts);
  if (texts.empty()) return "HDF5 gives no reason";
  if (texts.size() == 1 || texts.front() == texts.back()) return texts.front();
  return fmt::format("{} ({})", texts.front(), texts.back());
}

/// Throws an Error of `kind`: "<what>: <HDF5's text>". local.
[[noreturn]] inline void fail_hdf5(ErrorKind kind, const std::string& what) {
  fail(kind, "{}: {}", what, hdf5_error_text());
}

/// Returns `id`, or throws when it is negative. local.
inline hid_t hdf5_id(hid_t id, const std::string& what, ErrorKind kind = ErrorKind::file) {
  if (id < 0) fail_hdf5(kind, what);
  return id;
}
/// Throws when `status` is negative. local.
inline void hdf5_check(herr_t status, const std::string& what, ErrorKind kind = ErrorKind::file) {
  if (status < 0) fail_hdf5(kind, what);
}

}  // namespace tessera
