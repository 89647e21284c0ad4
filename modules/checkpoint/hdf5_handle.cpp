// SPDX-License-Identifier: Apache-2.0
// HDF5's error stack as one line of text.
#include "hdf5_handle.hpp"

#include <fmt/format.h>

#include <vector>

namespace tessera::checkpoint {
namespace {

herr_t collect(unsigned, const H5E_error2_t* entry, void* data) {
  auto& texts = *static_cast<std::vector<std::string>*>(data);
  if (entry->desc != nullptr && *entry->desc != '\0') texts.emplace_back(entry->desc);
  return 0;
}

}  // namespace

QuietHdf5::QuietHdf5() {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLget_loading_state(&plugins_);
  H5PLset_loading_state(0);
}

QuietHdf5::~QuietHdf5() {
  H5PLset_loading_state(plugins_);
  H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
}

std::string hdf5_error_text() {
  std::vector<std::string> texts;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &texts);
  if (texts.empty()) return "HDF5 gives no reason";
  if (texts.size() == 1 || texts.front() == texts.back()) return texts.front();
  return fmt::format("{} ({})", texts.front(), texts.back());
}

void fail_hdf5(ErrorKind kind, const std::string& what) {
  fail(kind, "{}: {}", what, hdf5_error_text());
}

}  // namespace tessera::checkpoint
