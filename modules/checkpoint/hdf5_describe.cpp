// SPDX-License-Identifier: Apache-2.0
// The walk through a Tessera file's objects, distrusting each.
#include "hdf5_describe.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "hdf5_attributes.hpp"
#include "hdf5_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_state.hpp"
#include "hdf5_types.hpp"
#include "input_file.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::size_t max_datasets = 1'000'000;  // hard links could repeat one any number of times
constexpr std::int64_t first_with_fingerprints = 2;  // version of the format

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

// Where the elements begin [bytes]; all of them are in the file. 0 if there are none.
std::int64_t offset_in_file(hid_t dataset, const TensorInfo& info, std::int64_t file_bytes,
                            const std::string& path) {
  std::int64_t room = file_bytes / std::int64_t(size_of(info.dtype));
  const bool is_empty = std::count(info.shape.begin(), info.shape.end(), 0) > 0;
  for (const std::int64_t extent : info.shape) {
    if (is_empty) return 0;
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
  return static_cast<std::int64_t>(offset);
}

TensorInfo describe_dataset(hid_t dataset, const std::string& name, const std::string& path,
                            std::int64_t file_bytes) {
  TensorInfo info{name, stored_dtype(dataset, path), stored_shape_of(dataset, path), ""};
  require_plain_storage(dataset, path);
  info.offset_bytes = offset_in_file(dataset, info, file_bytes, path);
  return info;
}

bool read_transposed(hid_t dataset) {
  const std::string orientation = read_string_attribute(dataset, "orientation");
  const std::int64_t transposed = read_int64_attribute(dataset, "checkpoint_transposed");
  if (transposed == 1 && orientation == "expert,out,in") return true;
  if (transposed == 0 && orientation == "checkpoint") return false;
  fail(ErrorKind::format,
       "orientation '{}' with checkpoint_transposed {} is none that this version knows (its "
       "elements could be misread)",
       orientation, transposed);
}

bool read_placement(hid_t dataset) {
  const std::string placement = read_string_attribute(dataset, "placement");
  if (placement != "expert" && placement != "dense") {
    fail(ErrorKind::format, "placement '{}' is neither 'expert' nor 'dense'", placement);
  }
  return placement == "expert";
}

// Hard links could repeat a dataset with many experts any number of times.
void read_fingerprint(hid_t dataset, FileDescription& description, StoredDataset& stored) {
  const std::int64_t num_experts = stored.is_expert ? stored.info.shape[0] : 1;
  TensorFingerprint& fingerprint = stored.fingerprint;
  description.num_fingerprints += num_experts;
  if (description.num_fingerprints > description.file_bytes / std::int64_t(sizeof(Fingerprint))) {
    fail(ErrorKind::format, "more fingerprints than the file has room for");
  }
  fingerprint.experts = read_fingerprints(dataset, num_experts);
  fingerprint.num_elements.assign(fingerprint.experts.size(),
                                  num_elements(stored.info.shape) / num_experts);
}

// Attributes of a dataset that lies plainly in the file.
void read_attributes(hid_t dataset, FileDescription& description, StoredDataset& stored) {
  const bool is_tensor = stored.group != files_group && stored.group != scales_group;
  if (is_tensor) stored.is_transposed = read_transposed(dataset);
  if (description.version < first_with_fingerprints) return;
  // A fingerprint of f32 values would say nothing of the lower half.
  if (stored.info.dtype == Dtype::f64) {
    fail(ErrorKind::format, "f64 elements belong to format version 1");
  }
  if (stored.group != files_group) stored.is_expert = read_placement(dataset);
  if (stored.group == parameters_group) stored.origin = read_origin(dataset);
  read_fingerprint(dataset, description, stored);
}

/// Sizes and attributes of one dataset. local.
const StoredDataset& add_dataset(hid_t dataset, const std::string& group_path,
                                 const std::string& name, FileDescription& description) {
  if (description.datasets.size() == max_datasets) {
    fail(ErrorKind::format, "more than {} datasets (no model has so many)", max_datasets);
  }
  const std::string path = fmt::format("/{}/{}", group_path, name);
  StoredDataset stored{.group = group_path,
                       .info = describe_dataset(dataset, name, path, description.file_bytes)};
  try {
    read_attributes(dataset, description, stored);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("'{}': {}", path, error.what()));
  }
  return description.datasets.emplace_back(std::move(stored));
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
    const TensorInfo& info = add_dataset(object.get(), files_group, name, description).info;
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

// Each MXFP4 parameter has its scales, and no scales lie there without one.
void require_scales(const std::vector<StoredDataset>& datasets) {
  for (const StoredDataset& dataset : datasets) {
    const std::string& name = dataset.info.name;
    if (dataset.group == parameters_group && dataset.origin.mxfp4) {
      const StoredDataset* scales = find_dataset(datasets, scales_group, name);
      const bool fits = scales != nullptr && scales->info.dtype == Dtype::u8 && scales->is_expert &&
                        may_have_scales(dataset.info.shape) &&
                        scales->info.shape == scales_shape(dataset.info.shape);
      if (!fits) {
        fail(ErrorKind::format, "'{}' {} was MXFP4, but '/{}/{}' does not hold its scales",
             dataset.path(), to_string(dataset.info.shape), scales_group, name);
      }
    }
    if (dataset.group != scales_group) continue;
    const StoredDataset* owner = find_dataset(datasets, parameters_group, name);
    if (owner == nullptr || !owner->origin.mxfp4) {
      fail(ErrorKind::format, "'{}' are scales of no MXFP4 parameter", dataset.path());
    }
  }
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
  FileDescription description;
  description.version = read_version(file);
  description.file_bytes = file_bytes;
  description.state = read_state(file);
  for (const std::string name : {parameters_group, optimizer_group, scales_group, files_group}) {
    const htri_t is_there = H5Lexists(file, name.c_str(), H5P_DEFAULT);
    if (is_there < 0) fail_hdf5(ErrorKind::format, "looking for '/" + name + "'");
    if (is_there == 0) continue;
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
  require_scales(description.datasets);
  return description;
}

}  // namespace

const StoredDataset* find_dataset(const std::vector<StoredDataset>& datasets,
                                  const std::string& group, const std::string& name) {
  const auto key = std::tie(group, name);
  const auto found = std::lower_bound(datasets.begin(), datasets.end(), key,
                                      [](const StoredDataset& d, const auto& wanted) {
                                        return std::tie(d.group, d.info.name) < wanted;
                                      });
  const bool is_found = found != datasets.end() && std::tie(found->group, found->info.name) == key;
  return is_found ? &*found : nullptr;
}

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

FileSummary summarize_file(const std::filesystem::path& path) {
  const QuietHdf5 quiet;
  const FileDescription description = describe_file(path, 0);
  FileSummary summary{description.version, description.file_bytes, description.state};
  for (const StoredDataset& dataset : description.datasets) {
    if (dataset.group == parameters_group)
      summary.num_parameters += num_elements(dataset.info.shape);
  }
  return summary;
}

}  // namespace tessera::checkpoint
