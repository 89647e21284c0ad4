// SPDX-License-Identifier: Apache-2.0
// Finds single parameters in a whole unit's flat buffer, by the end of their names.
#pragma once

#include <string_view>

#include "base/contract.hpp"
#include "kernel/view.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::model {

/// T: const float, const bf16 (gathered parameters) or float (a gradient buffer).
template <class T>
class UnitView {
 public:
  UnitView(const zero3::Unit& unit, T* flat) : unit_(&unit), flat_(flat) {}

  /// Whether the unit has a parameter whose name ends in `suffix`.
  bool has(std::string_view suffix) const { return index_of(suffix) < unit_->parameters().size(); }
  /// First element of that parameter. May be null if this rank's part of the unit is empty.
  T* get(std::string_view suffix) const {
    const std::size_t i = index_of(suffix);
    TESSERA_EXPECT(i < unit_->parameters().size());
    return flat_ + unit_->layout().offset(i);
  }
  /// The same, or null if the unit has no such parameter.
  T* find(std::string_view suffix) const { return has(suffix) ? get(suffix) : nullptr; }
  /// [size], or an empty view if the unit has no such parameter.
  kernel::Vector<T> vector(std::string_view suffix, std::int64_t size) const {
    return has(suffix) ? kernel::Vector<T>(get(suffix), size) : kernel::Vector<T>();
  }
  kernel::Matrix<T> matrix(std::string_view suffix, std::int64_t rows, std::int64_t cols) const {
    return kernel::Matrix<T>(get(suffix), rows, cols);
  }

 private:
  std::size_t index_of(std::string_view suffix) const {
    std::size_t i = 0;
    while (i < unit_->parameters().size() && !unit_->parameters()[i].name.ends_with(suffix)) ++i;
    return i;
  }

  const zero3::Unit* unit_;
  T* flat_;
};

}  // namespace tessera::model
