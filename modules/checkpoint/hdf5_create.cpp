// SPDX-License-Identifier: Apache-2.0
#include "hdf5_create.hpp"

#include <fmt/format.h>

#include "hdf5_attributes.hpp"
#include "hdf5_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_types.hpp"
#include "tessera/checkpoint/disk.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t metadata_slack_bytes = 8 << 20;
constexpr std::int64_t metadata_per_dataset_bytes = 4 << 10;

std::int64_t with_alignment(std::int64_t bytes) {
  return bytes + (bytes >= alignment_bytes ? alignment_bytes : 0);
}

std::int64_t needed_bytes(const Parameter& parameter, Dtype dtype) {
  return metadata_per_dataset_bytes +
         with_alignment(parameter.size() * std::int64_t(size_of(dtype))) +
         with_alignment(num_fingerprints(parameter) * std::int64_t(sizeof(Fingerprint)));
}

// Every element is written by its owner, so filling would be waste. Without times, equal content
// gives equal files.
Hdf5Properties dataset_creation() {
  Hdf5Properties creation(hdf5_id(H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
  hdf5_check(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), "dataset properties");
  hdf5_check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "dataset properties");
  hdf5_check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "dataset properties");
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "dataset properties");
  return creation;
}

}  // namespace

std::int64_t num_fingerprints(const Parameter& parameter) {
  return parameter.is_expert ? parameter.shape[0] : 1;
}

void require_specs(std::span<const DatasetSpec> datasets, const EmbeddedFiles& files) {
  const auto require = [](const std::string& name) {
    if (name.empty() || name == "." || name.find('/') != std::string::npos) {
      fail(ErrorKind::usage, "'{}' cannot be the name of a dataset", name);
    }
  };
  for (const DatasetSpec& spec : datasets) {
    require(spec.parameter->name);
    const bool is_known = spec.group == parameters_group ||
                          spec.group.starts_with(std::string(optimizer_group) + "/");
    if (!is_known) fail(ErrorKind::internal, "'{}' is no group of the format", spec.group);
    const Parameter& parameter = *spec.parameter;
    if (spec.origin.mxfp4 && (!parameter.is_expert || !may_have_scales(parameter.shape))) {
      fail(ErrorKind::internal, "'{}' {} cannot have MXFP4 scales", parameter.name,
           to_string(parameter.shape));
    }
  }
  for (const auto& [name, content] : files) require(name);
}

void require_sizes(const FileList& files) {
  std::int64_t sum = 0;
  for (const auto& [name, bytes] : files) {
    sum += bytes;
    if (sum <= embedded_limit_bytes) continue;
    fail(ErrorKind::usage,
         "the files to be embedded have more than {:.0f} GiB, '{}' included (no program would read "
         "the checkpoint again) take what is no part of the model out of its directory",
         gib(embedded_limit_bytes), name);
  }
}

std::int64_t needed_bytes(std::span<const DatasetSpec> datasets, const FileList& files) {
  std::int64_t sum = metadata_slack_bytes;
  for (const DatasetSpec& spec : datasets) {
    sum += needed_bytes(*spec.parameter, spec.dtype);
    if (spec.origin.mxfp4) sum += needed_bytes(scales_of(*spec.parameter), Dtype::u8);
  }
  for (const auto& [name, bytes] : files) sum += with_alignment(bytes) + metadata_per_dataset_bytes;
  return sum;
}

Hdf5Dataset create_dataset(hid_t file, const std::string& path, Dtype dtype, const Shape& shape) {
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  const Hdf5Space space(hdf5_id(
      H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), "dataspace"));
  return Hdf5Dataset(hdf5_id(H5Dcreate2(file, path.c_str(), hdf5_type(dtype).get(), space.get(),
                                        H5P_DEFAULT, dataset_creation().get(), H5P_DEFAULT),
                             fmt::format("creating '{}'", path)));
}

void create_group(hid_t file, const std::string& path) {
  const Hdf5Properties creation(hdf5_id(H5Pcreate(H5P_GROUP_CREATE), "group properties"));
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "group properties");
  for (std::size_t slash = path.find('/');; slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (H5Lexists(file, parent.c_str(), H5P_DEFAULT) <= 0) {
      const Hdf5Group group(hdf5_id(
          H5Gcreate2(file, parent.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), parent));
    }
    if (slash == std::string::npos) return;
  }
}

void describe_parameter(hid_t dataset, const DatasetSpec& spec) {
  const Parameter& parameter = *spec.parameter;
  write_attribute(dataset, "placement", std::string(parameter.is_expert ? "expert" : "dense"));
  write_attribute(dataset, "orientation",
                  std::string(parameter.transposed ? "expert,out,in" : "checkpoint"));
  write_attribute(dataset, "checkpoint_transposed", std::int64_t(parameter.transposed));
  if (spec.group == parameters_group) write_origin(dataset, spec.origin);
}

void describe_scales(hid_t dataset) {
  write_attribute(dataset, "placement", std::string("expert"));
}

}  // namespace tessera::checkpoint
