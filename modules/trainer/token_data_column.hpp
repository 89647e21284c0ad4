// SPDX-License-Identifier: Apache-2.0
// One array of integers in a file, with one or two dimensions, read as int64: tokens, labels or a
// mask.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/parameter.hpp"
#include "tessera/trainer/token_data.hpp"

namespace tessera::trainer {

class TokenColumn {
 public:
  virtual ~TokenColumn() = default;

  /// Elements begin ... begin + out.size() - 1, counted row-major; whole rows of a column with two
  /// dimensions. local. Throws Error::file.
  virtual void read(std::int64_t begin, std::span<std::int64_t> out) const = 0;

  const Shape& shape() const { return shape_; }
  const std::string& origin() const { return origin_; }  ///< "data.h5:/tokens", for messages
  const std::string& element_name() const { return element_name_; }  ///< "u16"

 protected:
  Shape shape_;
  std::string origin_;
  std::string element_name_;
};

/// What a column is for: its default dataset name, and whether booleans make sense.
enum class ColumnRole { tokens, labels, mask };

/// Opens the array, its kind of file told by the first bytes. local.
std::unique_ptr<TokenColumn> open_token_column(const std::filesystem::path& path,
                                               const std::string& dataset, FlatDtype flat_dtype,
                                               ColumnRole role);

/// The same for a file that is HDF5. An empty dataset: the first, by path, named after the role.
/// local.
std::unique_ptr<TokenColumn> open_hdf5_column(const std::filesystem::path& path,
                                              const std::string& dataset, ColumnRole role);

/// "tokens", "labels" or "mask".
const char* role_name(ColumnRole role);

}  // namespace tessera::trainer
