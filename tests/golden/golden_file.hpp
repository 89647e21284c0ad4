// SPDX-License-Identifier: Apache-2.0
// Reads numbers out of HDF5 files of results: the goldens and what `probe` writes. Serial, one
// rank.
#pragma once

#include <hdf5.h>

#include <cmath>
#include <string>
#include <vector>

namespace tessera::test {

class ResultFile {
 public:
  explicit ResultFile(const std::string& path)
      : file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT)) {}
  ~ResultFile() { H5Fclose(file_); }
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  bool has(const std::string& name) const {
    const auto slash = name.find('/');
    if (slash != std::string::npos &&
        H5Lexists(file_, name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) {
      return false;
    }
    return H5Lexists(file_, name.c_str(), H5P_DEFAULT) > 0;
  }
  /// All values of a dataset as f64; empty if there is none.
  std::vector<double> values(const std::string& name) const {
    const hid_t dataset = H5Dopen2(file_, name.c_str(), H5P_DEFAULT);
    if (dataset < 0) return {};
    const hid_t space = H5Dget_space(dataset);
    std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Sclose(space);
    H5Dclose(dataset);
    return values;
  }
  std::vector<hsize_t> shape(const std::string& name) const {
    const hid_t dataset = H5Dopen2(file_, name.c_str(), H5P_DEFAULT);
    const hid_t space = H5Dget_space(dataset);
    std::vector<hsize_t> shape(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
    H5Sget_simple_extent_dims(space, shape.data(), nullptr);
    H5Sclose(space);
    H5Dclose(dataset);
    return shape;
  }
  double scalar(const std::string& name) const {
    const std::vector<double> all = values(name);
    return all.empty() ? NAN : all[0];
  }
  double attribute(const std::string& object, const std::string& name) const {
    double value = NAN;
    const hid_t attribute =
        H5Aopen_by_name(file_, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
    H5Aread(attribute, H5T_NATIVE_DOUBLE, &value);
    H5Aclose(attribute);
    return value;
  }
  /// Names of the datasets in a group, in alphabetical order.
  std::vector<std::string> names(const std::string& group) const {
    std::vector<std::string> names;
    const hid_t opened = H5Gopen2(file_, group.c_str(), H5P_DEFAULT);
    H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, nullptr, &add_name, &names);
    H5Gclose(opened);
    return names;
  }

 private:
  static herr_t add_name(hid_t, const char* name, const H5L_info_t*, void* names) {
    static_cast<std::vector<std::string>*>(names)->push_back(name);
    return 0;
  }

  hid_t file_;
};

/// ||a - b|| / ||b||; the plain distance where b is zero; infinity where the sizes differ.
inline double relative_distance(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm > 0.0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace tessera::test
