// SPDX-License-Identifier: Apache-2.0
#include "hdf5_record.hpp"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <sstream>

#include "hdf5_attributes.hpp"

namespace tessera::checkpoint {
namespace {

constexpr const char* fingerprints_name = "fingerprints";
constexpr const char* dtypes_name = "checkpoint_dtypes";
constexpr const char* mxfp4_name = "checkpoint_mxfp4";

// The attribute holds pairs of numbers exactly as memory does.
static_assert(sizeof(Fingerprint) == 2 * sizeof(std::uint64_t));

std::optional<Dtype> dtype_named(const std::string& name) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32, Dtype::f64}) {
    if (name == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

}  // namespace

bool may_have_scales(const Shape& shape) {
  return shape.size() == 3 && shape[2] % mxfp4_block_elements == 0;
}

Shape scales_shape(const Shape& shape) {
  return {shape[0], shape[1], shape[2] / mxfp4_block_elements};
}

Parameter scales_of(const Parameter& parameter) {
  return {.name = parameter.name,
          .shape = scales_shape(parameter.shape),
          .is_expert = parameter.is_expert};
}

ScalePlan plan_scales(std::span<const Parameter> parameters, std::span<const Slice> slices,
                      const std::function<bool(const Parameter&)>& has_scales) {
  ScalePlan plan;
  plan.parameters.reserve(parameters.size());  // slices keep pointers
  for (const Parameter& parameter : parameters) {
    if (!has_scales(parameter)) continue;
    plan.parameters.push_back(scales_of(parameter));
    for (const Slice& slice : slices) {
      if (slice.size() == 0 || slice.parameter->name != parameter.name) continue;
      if (slice.begin % mxfp4_block_elements != 0 || slice.end % mxfp4_block_elements != 0) {
        fail(ErrorKind::internal, "slice [{}, {}) of '{}' cuts an MXFP4 block", slice.begin,
             slice.end, parameter.name);
      }
      const std::int64_t begin = slice.begin / mxfp4_block_elements;
      const std::int64_t end = slice.end / mxfp4_block_elements;
      plan.slices.push_back({&plan.parameters.back(), begin, end, plan.num_scales});
      plan.num_scales += end - begin;
    }
  }
  return plan;
}

std::vector<std::uint8_t> gather_scales(const ScalePlan& plan, const ScaleShards& scales) {
  std::vector<std::uint8_t> shard;
  for (const Slice& slice : plan.slices) {
    const auto found = scales.find(slice.parameter->name);
    const std::int64_t given = found == scales.end() ? 0 : std::ssize(found->second);
    if (given != slice.size()) {
      fail(ErrorKind::internal, "{} scales of '{}' were given, but its slice has {}", given,
           slice.parameter->name, slice.size());
    }
    shard.insert(shard.end(), found->second.begin(), found->second.end());
  }
  return shard;
}

void create_fingerprints(hid_t dataset, std::int64_t num_experts) {
  const std::array<hsize_t, 2> extent{static_cast<hsize_t>(num_experts), 2};
  const Hdf5Space space(
      hdf5_id(H5Screate_simple(2, extent.data(), nullptr), "space of fingerprints"));
  const Hdf5Attribute attribute(hdf5_id(
      H5Acreate2(dataset, fingerprints_name, H5T_STD_U64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
      "creating fingerprints"));
}

void write_fingerprints(hid_t dataset, std::span<const Fingerprint> fingerprints) {
  const Hdf5Attribute attribute(
      hdf5_id(H5Aopen(dataset, fingerprints_name, H5P_DEFAULT), "opening fingerprints"));
  hdf5_check(H5Awrite(attribute.get(), H5T_NATIVE_UINT64, fingerprints.data()),
             "writing fingerprints");
}

std::vector<Fingerprint> read_fingerprints(hid_t dataset, std::int64_t num_experts) {
  if (!has_attribute(dataset, fingerprints_name)) {
    fail(ErrorKind::format, "attribute 'fingerprints' is missing (nothing could be verified)");
  }
  const auto check = [](hid_t id) { return hdf5_id(id, fingerprints_name, ErrorKind::format); };
  const Hdf5Attribute attribute(check(H5Aopen(dataset, fingerprints_name, H5P_DEFAULT)));
  const Hdf5Space space(check(H5Aget_space(attribute.get())));
  const Hdf5Type type(check(H5Aget_type(attribute.get())));
  std::array<hsize_t, 2> extent{};
  const bool is_table = H5Sget_simple_extent_ndims(space.get()) == 2 &&
                        H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr) == 2;
  if (!is_table || extent[0] != static_cast<hsize_t>(num_experts) || extent[1] != 2 ||
      H5Tequal(type.get(), H5T_STD_U64LE) <= 0) {
    fail(ErrorKind::format, "attribute 'fingerprints' is not u64 [{}, 2]", num_experts);
  }
  std::vector<Fingerprint> fingerprints(static_cast<std::size_t>(num_experts));
  hdf5_check(H5Aread(attribute.get(), H5T_NATIVE_UINT64, fingerprints.data()), fingerprints_name,
             ErrorKind::format);
  return fingerprints;
}

void write_origin(hid_t dataset, const Origin& origin) {
  std::string names;
  for (const Dtype dtype : origin.dtypes) {
    if (!names.empty()) names += ',';
    names += to_string(dtype);
  }
  write_attribute(dataset, dtypes_name, names);
  write_attribute(dataset, mxfp4_name, std::int64_t(origin.mxfp4));
}

Origin read_origin(hid_t dataset) {
  Origin origin{.dtypes = {}, .mxfp4 = read_int64_attribute(dataset, mxfp4_name) != 0};
  std::istringstream names(read_string_attribute(dataset, dtypes_name));
  for (std::string name; std::getline(names, name, ',');) {
    const std::optional<Dtype> dtype = dtype_named(name);
    if (!dtype) {
      fail(ErrorKind::format, "attribute '{}' has '{}', which is no element type of a checkpoint",
           dtypes_name, name);
    }
    origin.dtypes.push_back(*dtype);
  }
  if (origin.dtypes.empty()) fail(ErrorKind::format, "attribute '{}' is empty", dtypes_name);
  return origin;
}

}  // namespace tessera::checkpoint
