// SPDX-License-Identifier: Apache-2.0
// Arrays of a science code beside the model in one Tessera file, as /fields/<name>: written by all
// ranks together, in the same atomic save.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "base/parameter.hpp"
#include "comm/communicator.hpp"

namespace tessera::checkpoint {

/// A global array and the box of it that this rank has: elements start[d] ... start[d] + count[d] -
/// 1 of each dimension d, row-major in memory. A rank without elements has a count of 0 somewhere.
struct FieldBox {
  std::string name;
  Dtype dtype = Dtype::f64;  ///< in memory: f32, f64, i32, i64 or u8
  Shape shape;               ///< of the whole array, at least one dimension
  std::vector<std::int64_t> start, count;

  std::int64_t size() const { return num_elements(count); }
};

/// Host memory; the file has the same type, little-endian.
struct Field {
  FieldBox box;
  const void* data = nullptr;
};

/// Throws Error::usage, agreed, unless name, type and shape are the same on all ranks, boxes lie in
/// their arrays and have as many elements together as the array. collective over world.
void require_fields(const comm::Communicator& world, std::span<const Field> fields);

/// Reads this rank's box; boxes of several ranks may overlap. The type is converted as HDF5 does.
/// Throws Error::file, Error::keys if the file has no such field or one of another shape; agreed.
/// collective over world.
void read_field(const comm::Communicator& world, const std::filesystem::path& path,
                const FieldBox& box, void* data);

}  // namespace tessera::checkpoint
