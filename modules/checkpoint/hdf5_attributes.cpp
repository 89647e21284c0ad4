// SPDX-License-Identifier: Apache-2.0
#include "hdf5_attributes.hpp"

#include <fmt/format.h>

namespace tessera::checkpoint {
namespace {

std::string about(const char* name) { return fmt::format("attribute '{}'", name); }

void write_scalar(hid_t object, const char* name, hid_t type, const void* value) {
  const Hdf5Space space(hdf5_id(H5Screate(H5S_SCALAR), about(name)));
  const Hdf5Attribute attribute(
      hdf5_id(H5Acreate2(object, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), about(name)));
  hdf5_check(H5Awrite(attribute.get(), type, value), about(name));
}

Hdf5Type string_type(std::size_t bytes) {
  Hdf5Type type(hdf5_id(H5Tcopy(H5T_C_S1), "string type"));
  hdf5_check(H5Tset_size(type.get(), bytes), "string type");
  hdf5_check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "string type");
  hdf5_check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "string type");
  return type;
}

Hdf5Attribute open_scalar(hid_t object, const char* name) {
  if (!has_attribute(object, name)) {
    fail(ErrorKind::format, "{} is missing (the file is damaged or not from Tessera)", about(name));
  }
  Hdf5Attribute attribute(
      hdf5_id(H5Aopen(object, name, H5P_DEFAULT), about(name), ErrorKind::format));
  const Hdf5Space space(hdf5_id(H5Aget_space(attribute.get()), about(name), ErrorKind::format));
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    fail(ErrorKind::format, "{} is not a single value", about(name));
  }
  return attribute;
}

template <class T>
T read_integer(hid_t object, const char* name, hid_t memory_type) {
  const Hdf5Attribute attribute = open_scalar(object, name);
  const Hdf5Type type(hdf5_id(H5Aget_type(attribute.get()), about(name), ErrorKind::format));
  if (H5Tget_class(type.get()) != H5T_INTEGER) {
    fail(ErrorKind::format, "{} is not an integer", about(name));
  }
  T value = 0;
  hdf5_check(H5Aread(attribute.get(), memory_type, &value), about(name), ErrorKind::format);
  return value;
}

}  // namespace

bool has_attribute(hid_t object, const char* name) {
  const htri_t found = H5Aexists(object, name);
  if (found < 0) fail_hdf5(ErrorKind::format, about(name));
  return found > 0;
}

void write_attribute(hid_t object, const char* name, std::int64_t value) {
  write_scalar(object, name, H5T_STD_I64LE, &value);
}

void write_attribute(hid_t object, const char* name, std::uint64_t value) {
  write_scalar(object, name, H5T_STD_U64LE, &value);
}

void write_attribute(hid_t object, const char* name, const std::string& value) {
  // HDF5 has no string of length zero; one padding byte stands for it.
  const Hdf5Type type = string_type(value.empty() ? 1 : value.size());
  write_scalar(object, name, type.get(), value.c_str());
}

std::int64_t read_int64_attribute(hid_t object, const char* name) {
  return read_integer<std::int64_t>(object, name, H5T_NATIVE_INT64);
}

std::uint64_t read_uint64_attribute(hid_t object, const char* name) {
  return read_integer<std::uint64_t>(object, name, H5T_NATIVE_UINT64);
}

std::string read_string_attribute(hid_t object, const char* name) {
  const Hdf5Attribute attribute = open_scalar(object, name);
  const Hdf5Type type(hdf5_id(H5Aget_type(attribute.get()), about(name), ErrorKind::format));
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0) {
    fail(ErrorKind::format, "{} is not a string of fixed length", about(name));
  }
  std::string value(H5Tget_size(type.get()), '\0');
  hdf5_check(H5Aread(attribute.get(), type.get(), value.data()), about(name), ErrorKind::format);
  value.resize(value.find_last_not_of('\0') + 1);
  return value;
}

}  // namespace tessera::checkpoint
