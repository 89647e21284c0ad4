// SPDX-License-Identifier: Apache-2.0
// The walk through a Tessera file's objects, distrusting each.
#include "hdf5_describe.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "hdf5_attributes.hpp"
#include "hdf5_file.hpp"
#include "hdf5_types.hpp"
#include "input_file.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t embedded_limit_bytes = 1 << 30;  // of all embedded files together
constexpr std::size_t max_datasets = 1'000'000;  // hard links could repeat one any number of times
constexpr std::int64_t max_count = std::int64_t(1) << 62;  // leaves room for sums of such numbers

using Hdf5Object = Hdf5Handle<H5Oclose>;

std::vector<std::string> member_names(hid_t group) {
  H5G_info_t info{};
  hdf5_check(H5Gget_info(group, &info), "listing a group", ErrorKind::format);
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto get = [&](char* text, std::size_t bytes) {
      return H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, text, bytes,
                                H5P_DEFAULT);
    };
    const ssize_t length = get(nullptr, 0);
    if (length < 0) fail_hdf5(ErrorKind::format, "listing a group");
    std::string name(static_cast<std::size_t>(length) + 1, '\0');
    if (get(name.data(), name.size()) < 0) fail_hdf5(ErrorKind::format, "listing a group");
    name.pop_back();
    names.push_back(std::move(name));
  }
  return names;
}

// Soft and external links could lead out of the checkpoint.
Hdf5Object open_member(hid_t group, const std::string& name, const std::string& path) {
  H5L_info_t link{};
  hdf5_check(H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT), path, ErrorKind::format);
  if (link.type != H5L_TYPE_HARD) {
    fail(ErrorKind::format,
         "'{}' is a soft or external link (data outside this checkpoint is not read)", path);
  }
  return Hdf5Object(hdf5_id(H5Oopen(group, name.c_str(), H5P_DEFAULT),
                            fmt::format("opening '{}'", path), ErrorKind::format));
}

void require_plain_storage(hid_t dataset, const std::string& path) {
  const Hdf5Properties creation(hdf5_id(H5Dget_create_plist(dataset), path, ErrorKind::format));
  if (H5Pget_nfilters(creation.get()) > 0) {
    fail(ErrorKind::format,
         "'{}' is filtered or compressed (ranks read its raw bytes) rewrite the file "
         "with h5repack -f NONE -l CONTI",
         path);
  }
  const H5D_layout_t layout = H5Pget_layout(creation.get());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(creation.get()) > 0) {
    fail(ErrorKind::format,
         "'{}' has its data in other files (data outside this checkpoint is not read)", path);
  }
  if (layout != H5D_CONTIGUOUS) {
    fail(ErrorKind::format,
         "'{}' is not stored contiguously (parallel reads need it) rewrite the file "
         "with h5repack -f NONE -l CONTI",
         path);
  }
}

Dtype stored_dtype(hid_t dataset, const std::string& path) {
  const Hdf5Type type(hdf5_id(H5Dget_type(dataset), path, ErrorKind::format));
  const std::optional<Dtype> dtype = dtype_of_hdf5(type.get());
  if (dtype) return *dtype;
  fail(ErrorKind::format,
       "'{}' has an element type other than f16, bf16, f32, f64 or u8, little-endian", path);
}

Shape stored_shape_of(hid_t dataset, const std::string& path) {
  const Hdf5Space space(hdf5_id(H5Dget_space(dataset), path, ErrorKind::format));
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (H5Sis_simple(space.get()) <= 0 || rank < 1) {
    fail(ErrorKind::format, "'{}' is not an array", path);
  }
  std::vector<hsize_t> extent(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  return {extent.begin(), extent.end()};
}

// Beyond the end of a file MPI-IO reads zeros and reports nothing, so the bytes are looked for
// here.
void require_bytes_in_file(hid_t dataset, const TensorInfo& info, std::int64_t file_bytes,
                           const std::string& path) {
  std::int64_t room = file_bytes / std::int64_t(size_of(info.dtype));
  const bool is_empty = std::count(info.shape.begin(), info.shape.end(), 0) > 0;
  for (const std::int64_t extent : info.shape) {
    if (is_empty) return;
    if (extent < 0 || extent > room) {
      fail(ErrorKind::format, "'{}' {} does not fit into the file", path, to_string(info.shape));
    }
    room /= extent;
  }
  const haddr_t offset = H5Dget_offset(dataset);
  const hsize_t stored = H5Dget_storage_size(dataset);
  const auto end = static_cast<hsize_t>(file_bytes), bytes = static_cast<hsize_t>(info.bytes());
  if (offset == HADDR_UNDEF || stored != bytes || offset > end || bytes > end - offset) {
    fail(ErrorKind::format,
         "the data of '{}' is incomplete: {} bytes are needed, {} are stored and the "
         "file ends at {} (the file is truncated or was not finished)",
         path, bytes, stored, file_bytes);
  }
}

TensorInfo describe_dataset(hid_t dataset, const std::string& name, const std::string& path,
                            std::int64_t file_bytes) {
  TensorInfo info{name, stored_dtype(dataset, path), stored_shape_of(dataset, path), ""};
  require_plain_storage(dataset, path);
  require_bytes_in_file(dataset, info, file_bytes, path);
  return info;
}

bool read_transposed(hid_t dataset, const std::string& path) {
  try {
    const std::string orientation = read_string_attribute(dataset, "orientation");
    const std::int64_t transposed = read_int64_attribute(dataset, "checkpoint_transposed");
    if (transposed == 1 && orientation == "expert,out,in") return true;
    if (transposed == 0 && orientation == "checkpoint") return false;
    fail(ErrorKind::format,
         "orientation '{}' with checkpoint_transposed {} is none that this version knows (its "
         "elements could be misread)",
         orientation, transposed);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("'{}': {}", path, error.what()));
  }
}

void add_dataset(hid_t dataset, const std::string& group_path, const std::string& name,
                 FileDescription& description) {
  if (description.datasets.size() == max_datasets) {
    fail(ErrorKind::format, "more than {} datasets (no model has so many)", max_datasets);
  }
  const std::string path = fmt::format("/{}/{}", group_path, name);
  TensorInfo info = describe_dataset(dataset, name, path, description.file_bytes);
  description.datasets.push_back({group_path, std::move(info), read_transposed(dataset, path)});
}

/// num_levels: of groups below this one that FORMAT.md has; hard links could form a circle.
void walk_group(hid_t group, const std::string& group_path, int num_levels,
                FileDescription& description) {
  if (num_levels < 0) fail(ErrorKind::format, "'/{}' is nested too deep", group_path);
  for (const std::string& name : member_names(group)) {
    const std::string path = fmt::format("/{}/{}", group_path, name);
    const Hdf5Object object = open_member(group, name, path);
    switch (H5Iget_type(object.get())) {
      case H5I_GROUP: walk_group(object.get(), path.substr(1), num_levels - 1, description); break;
      case H5I_DATASET: add_dataset(object.get(), group_path, name, description); break;
      default: fail(ErrorKind::format, "'{}' is neither a group nor a dataset", path);
    }
  }
}

void read_embedded(hid_t group, FileDescription& description) {
  std::int64_t total_bytes = 0;
  for (const std::string& name : member_names(group)) {
    const std::string path = fmt::format("/{}/{}", files_group, name);
    const Hdf5Object object = open_member(group, name, path);
    if (H5Iget_type(object.get()) != H5I_DATASET) {
      fail(ErrorKind::format, "'{}' is not a dataset", path);
    }
    const TensorInfo info = describe_dataset(object.get(), name, path, description.file_bytes);
    total_bytes += info.bytes();
    if (info.dtype != Dtype::u8 || info.shape.size() != 1 || total_bytes > embedded_limit_bytes) {
      fail(ErrorKind::format, "'{}' is not a file of bytes, or larger than embedded files may be",
           path);
    }
    std::string content(static_cast<std::size_t>(info.bytes()), '\0');
    if (!content.empty()) {
      hdf5_check(H5Dread(object.get(), H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, content.data()),
                 fmt::format("reading '{}'", path));
    }
    description.files.emplace(name, std::move(content));
  }
}

void require_format(hid_t file) {
  if (H5Aexists(file, "format") <= 0 || read_string_attribute(file, "format") != format_name) {
    fail(ErrorKind::format,
         "an HDF5 file, but not a Tessera checkpoint (root attribute 'format' is not "
         "'{}')",
         format_name);
  }
  const std::int64_t version = read_int64_attribute(file, "format_version");
  if (version > format_version) {
    fail(ErrorKind::format,
         "format version {} is newer than this Tessera, which knows up to {} (its "
         "content could be misread) use a newer Tessera",
         version, format_version);
  }
  if (version < 1) fail(ErrorKind::format, "format version {} does not exist", version);
}

std::int64_t read_count(hid_t file, const char* name) {
  const std::int64_t value = read_int64_attribute(file, name);
  if (value < 0 || value > max_count) {
    fail(ErrorKind::format, "attribute '{}' is {} but must lie between 0 and {}", name, value,
         max_count);
  }
  return value;
}

TrainingState read_state(hid_t file) {
  TrainingState state;
  state.step = read_count(file, "step");
  state.optimizer_steps = read_count(file, "optimizer_steps");
  state.data_position = read_count(file, "data_position");
  state.seed = read_uint64_attribute(file, "seed");
  state.optimizer = read_string_attribute(file, "optimizer");
  state.training_json = read_string_attribute(file, "training_json");
  return state;
}

void require_signature(const InputFile& file) {
  constexpr std::array<unsigned char, 8> signature{0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  std::array<std::byte, 8> first{};
  if (file.size_bytes() >= std::ssize(first)) file.read_at(0, first);
  if (std::memcmp(first.data(), signature.data(), first.size()) != 0) {
    fail(ErrorKind::format, "not an HDF5 file");
  }
}

FileDescription describe_opened(hid_t file, std::int64_t file_bytes) {
  require_format(file);
  FileDescription description;
  description.file_bytes = file_bytes;
  description.state = read_state(file);
  for (const std::string name : {parameters_group, optimizer_group, files_group}) {
    if (H5Lexists(file, name.c_str(), H5P_DEFAULT) <= 0) continue;
    const Hdf5Object group = open_member(file, name, "/" + name);
    if (H5Iget_type(group.get()) != H5I_GROUP)
      fail(ErrorKind::format, "'/{}' is not a group", name);
    if (name == files_group) {
      read_embedded(group.get(), description);
    } else {
      walk_group(group.get(), name, name == optimizer_group ? 1 : 0, description);
    }
  }
  std::ranges::sort(description.datasets, {},
                    [](const StoredDataset& d) { return std::tie(d.group, d.info.name); });
  return description;
}

}  // namespace

FileDescription describe_file(const std::filesystem::path& path, int world_rank) {
  const InputFile file(path, world_rank);
  try {
    require_signature(file);
    const Hdf5File opened = open_serial(path);
    FileDescription description = describe_opened(opened.get(), file.size_bytes());
    for (StoredDataset& dataset : description.datasets)
      dataset.info.file = path.filename().string();
    return description;
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace tessera::checkpoint
