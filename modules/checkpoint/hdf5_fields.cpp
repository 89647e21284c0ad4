// SPDX-License-Identifier: Apache-2.0
#include "hdf5_fields.hpp"

#include <fmt/format.h>

#include <set>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_create.hpp"
#include "hdf5_file.hpp"
#include "hdf5_transfer.hpp"

namespace tessera::checkpoint {
namespace {

constexpr const char* fields_group = "fields";

hid_t native_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return H5T_NATIVE_FLOAT;
    case Dtype::f64: return H5T_NATIVE_DOUBLE;
    case Dtype::i32: return H5T_NATIVE_INT32;
    case Dtype::i64: return H5T_NATIVE_INT64;
    case Dtype::u8: return H5T_NATIVE_UINT8;
    default:
      fail(ErrorKind::usage, "a field of {} (it is f32, f64, i32, i64 or u8)", to_string(dtype));
  }
}

std::vector<hsize_t> extents(const std::vector<std::int64_t>& values) {
  return {values.begin(), values.end()};
}

void require_box(const FieldBox& box) {
  native_type(box.dtype);
  if (box.name.empty() || box.name == "." || box.name.find('/') != std::string::npos)
    fail(ErrorKind::usage, "'{}' cannot be the name of a field", box.name);
  if (box.shape.empty() || box.start.size() != box.shape.size() ||
      box.count.size() != box.shape.size())
    fail(ErrorKind::usage, "field '{}' {}: start and count need one number per dimension", box.name,
         to_string(box.shape));
  for (std::size_t d = 0; d < box.shape.size(); ++d) {
    if (box.start[d] >= 0 && box.count[d] >= 0 && box.start[d] <= box.shape[d] - box.count[d])
      continue;
    fail(ErrorKind::usage, "field '{}': the box that begins at {} and has {} is not within {}",
         box.name, to_string(box.start), to_string(box.count), to_string(box.shape));
  }
}

// In the file and, as a block of its own, in memory.
std::pair<Hdf5Space, Hdf5Space> selected(const FieldBox& box) {
  const auto shape = extents(box.shape), start = extents(box.start), count = extents(box.count);
  const int rank = static_cast<int>(shape.size());
  Hdf5Space file(hdf5_id(H5Screate_simple(rank, shape.data(), nullptr), "space of a field"));
  Hdf5Space memory(hdf5_id(H5Screate_simple(rank, count.data(), nullptr), "space of a field"));
  if (box.size() == 0) {
    H5Sselect_none(file.get());
    H5Sselect_none(memory.get());
  } else {
    hdf5_check(H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(),
                                   nullptr),
               "box of a field");
  }
  return {std::move(file), std::move(memory)};
}

std::string path_of(const FieldBox& box) { return fmt::format("{}/{}", fields_group, box.name); }

// H5Lexists fails where the group is missing.
bool has_field(hid_t file, const FieldBox& box) {
  return H5Lexists(file, fields_group, H5P_DEFAULT) > 0 &&
         H5Lexists(file, path_of(box).c_str(), H5P_DEFAULT) > 0;
}

Shape stored_shape(hid_t dataset) {
  const Hdf5Space space(hdf5_id(H5Dget_space(dataset), "space of a field"));
  std::vector<hsize_t> extent(
      static_cast<std::size_t>(std::max(H5Sget_simple_extent_ndims(space.get()), 0)));
  H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  return {extent.begin(), extent.end()};
}

/// What must be the same on all ranks.
std::string announcement(std::span<const Field> fields) {
  std::string text;
  for (const Field& field : fields)
    text += fmt::format("'{}' {} {}; ", field.box.name, to_string(field.box.dtype),
                        to_string(field.box.shape));
  return text;
}

}  // namespace

void require_fields(const comm::Communicator& world, std::span<const Field> fields) {
  const std::string own = announcement(fields);
  const std::string first = world.broadcast_string("fields", own, 0);
  comm::agreed(world, "look at the fields", [&] {
    if (own != first)
      fail(ErrorKind::usage, "fields {}are saved here and {}on rank 0 (all ranks save the same)",
           own.empty() ? "none " : own, first.empty() ? "none " : first);
    std::set<std::string> names;
    for (const Field& field : fields) {
      require_box(field.box);
      if (!names.insert(field.box.name).second)
        fail(ErrorKind::usage, "field '{}' is given twice", field.box.name);
      if (field.data == nullptr && field.box.size() > 0)
        fail(ErrorKind::usage, "field '{}' has no data", field.box.name);
    }
  });
  std::vector<std::int64_t> sizes;
  for (const Field& field : fields) sizes.push_back(field.box.size());
  world.all_reduce("sizes of the fields", std::span(sizes), comm::ReduceOp::sum);
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const FieldBox& box = fields[i].box;
    if (sizes[i] == num_elements(box.shape)) continue;
    fail(ErrorKind::usage,
         "field '{}' {} has {} elements and the ranks give {} (each element is given by one rank)",
         box.name, to_string(box.shape), num_elements(box.shape), sizes[i]);
  }
}

void write_field(hid_t file, const Field& field) {
  const FieldBox& box = field.box;
  create_group(file, fields_group);
  const auto [space, memory] = selected(box);
  const Hdf5Properties creation(hdf5_id(H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
  hdf5_check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "dataset properties");
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "dataset properties");
  const std::string path = path_of(box);
  const Hdf5Dataset dataset(
      hdf5_id(H5Dcreate2(file, path.c_str(), native_type(box.dtype), space.get(), H5P_DEFAULT,
                         creation.get(), H5P_DEFAULT),
              "creating " + path));
  hdf5_check(H5Dwrite(dataset.get(), native_type(box.dtype), memory.get(), space.get(),
                      transfer_properties(true).get(), field.data),
             "writing " + path);
}

void read_field(const comm::Communicator& world, const std::filesystem::path& path,
                const FieldBox& box, void* data) {
  const comm::Phase phase("read field", world.options().deadline);
  const QuietHdf5 quiet;
  comm::agreed(world, "look at the field", [&] {
    require_box(box);
    if (std::filesystem::exists(path)) return;
    fail(ErrorKind::file, "{}: no such file", path.string());
  });
  Hdf5File file = comm::agreed(world, "open file", [&] { return open_parallel(world, path); });
  comm::agreed(world, "read field", [&] {
    if (!has_field(file.get(), box))
      fail(ErrorKind::keys, "{} has no field '{}'", path.string(), box.name);
    const Hdf5Dataset dataset(
        hdf5_id(H5Dopen2(file.get(), path_of(box).c_str(), H5P_DEFAULT), "opening the field"));
    const Shape stored = stored_shape(dataset.get());
    if (stored != box.shape)
      fail(ErrorKind::keys, "field '{}' of {} is {}, not {}", box.name, path.string(),
           to_string(stored), to_string(box.shape));
    const auto [space, memory] = selected(box);
    hdf5_check(H5Dread(dataset.get(), native_type(box.dtype), memory.get(), space.get(),
                       transfer_properties(true).get(), data),
               "reading field " + box.name);
  });
}

}  // namespace tessera::checkpoint
