// SPDX-License-Identifier: Apache-2.0
// What the handles of tessera.h are. Whatever is made on a grid shares it, so that handles may be
// destroyed in any order.
#pragma once

#include <tessera/tessera.h>

#include <memory>
#include <span>
#include <tessera/checkpoint/fields.hpp>
#include <vector>

#include "comm/process_grid.hpp"

struct tessera_grid {
  std::shared_ptr<const tessera::comm::ProcessGrid> grid;
};

struct tessera_fields {
  std::vector<tessera::checkpoint::Field> fields;
};

namespace tessera::c {

using SharedGrid = std::shared_ptr<const comm::ProcessGrid>;

/// Throws Error::usage for null. local.
const SharedGrid& shared(const tessera_grid* grid);

/// Of a list that may be null. local.
inline std::span<const checkpoint::Field> fields_of(const tessera_fields* list) {
  if (list == nullptr) return {};
  return list->fields;
}

/// Throws Error::usage for a null array or one without dimensions. local.
checkpoint::FieldBox field_box(const char* name, tessera_type type, int num_dimensions,
                               const std::int64_t* shape, const std::int64_t* start,
                               const std::int64_t* count);

}  // namespace tessera::c
