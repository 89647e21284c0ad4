// SPDX-License-Identifier: Apache-2.0
// A column in an HDF5 file. Each rank opens the file by itself and reads its rows independently:
// which rows a rank needs differs from rank to rank and from step to step.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "base/hdf5_handle.hpp"
#include "token_data_column.hpp"

namespace tessera::trainer {
namespace {

using Hdf5Object = Hdf5Handle<H5Oclose>;

herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

bool is_dataset(hid_t file, const std::string& name) {
  const Hdf5Object object(H5Oopen(file, name.c_str(), H5P_DEFAULT));
  return object && H5Iget_type(object.get()) == H5I_DATASET;
}

std::vector<std::string> dataset_names(hid_t file) {
  std::vector<std::string> links, datasets;
  H5Lvisit(file, H5_INDEX_NAME, H5_ITER_INC, collect_name, &links);
  std::copy_if(links.begin(), links.end(), std::back_inserter(datasets),
               [&](const std::string& name) { return is_dataset(file, name); });
  return datasets;
}

std::string find_dataset(hid_t file, const std::string& wanted, ColumnRole role,
                         const std::string& origin) {
  const std::string last_name = role_name(role);
  std::vector<std::string> names = dataset_names(file);
  const std::string path = wanted.starts_with('/') ? wanted.substr(1) : wanted;
  for (const std::string& name : names) {
    if (wanted.empty() ? name == last_name || name.ends_with("/" + last_name) : name == path)
      return name;
  }
  const std::size_t num_shown = std::min<std::size_t>(names.size(), 10);
  names.resize(num_shown);
  fail(ErrorKind::format, "{}: has no dataset '{}'; it has: {}", origin,
       wanted.empty() ? last_name : wanted,
       num_shown == 0 ? "none" : fmt::format("{}", fmt::join(names, ", ")));
}

class Hdf5Column : public TokenColumn {
 public:
  Hdf5Column(const std::filesystem::path& path, const std::string& wanted, ColumnRole role) {
    const QuietHdf5 quiet;
    file_ = Hdf5File(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
    if (!file_) fail(ErrorKind::format, "{}: cannot be opened as an HDF5 file", path.string());
    const std::string name = find_dataset(file_.get(), wanted, role, path.string());
    origin_ = fmt::format("{}:/{}", path.string(), name);
    dataset_ = Hdf5Dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT));
    if (!dataset_) fail(ErrorKind::format, "{}: cannot be opened", origin_);
    read_type(role);
    read_shape();
  }

  void read(std::int64_t begin, std::span<std::int64_t> out) const override {
    const QuietHdf5 quiet;
    const hsize_t count = out.size();
    const Hdf5Space memory(H5Screate_simple(1, &count, nullptr));
    const Hdf5Space space = select(static_cast<hsize_t>(begin), count);
    if (H5Dread(dataset_.get(), H5T_NATIVE_INT64, memory.get(), space.get(), H5P_DEFAULT,
                out.data()) < 0) {
      fail(ErrorKind::file, "{}: cannot read {} elements from {} on", origin_, count, begin);
    }
  }

 private:
  // h5py stores booleans as an enumeration over int8, which HDF5 converts to integers by value.
  void read_type(ColumnRole role) {
    const Hdf5Type type(H5Dget_type(dataset_.get()));
    const H5T_class_t kind = H5Tget_class(type.get());
    if (kind != H5T_INTEGER && !(kind == H5T_ENUM && role == ColumnRole::mask)) {
      fail(ErrorKind::format, "{}: elements are no integers ({} need an integer type)", origin_,
           role_name(role));
    }
    const bool is_signed = kind == H5T_INTEGER && H5Tget_sign(type.get()) == H5T_SGN_2;
    element_name_ = fmt::format("{}{}", is_signed ? 'i' : 'u', 8 * H5Tget_size(type.get()));
  }

  void read_shape() {
    const Hdf5Space space(H5Dget_space(dataset_.get()));
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 1 || rank > 2) {
      fail(ErrorKind::format,
           "{}: has {} dimensions, a stream has one and rows of sequences have two", origin_, rank);
    }
    std::array<hsize_t, 2> extent{};
    H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
    shape_.assign(extent.begin(), extent.begin() + rank);
  }

  Hdf5Space select(hsize_t begin, hsize_t count) const {
    Hdf5Space space(H5Dget_space(dataset_.get()));
    if (shape_.size() == 1) {
      H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &begin, nullptr, &count, nullptr);
    } else {
      const auto width = static_cast<hsize_t>(shape_[1]);
      TESSERA_EXPECT(begin % width == 0 && count % width == 0);
      const std::array<hsize_t, 2> start{begin / width, 0}, extent{count / width, width};
      H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(),
                          nullptr);
    }
    return space;
  }

  Hdf5File file_;
  Hdf5Dataset dataset_;
};

}  // namespace

std::unique_ptr<TokenColumn> open_hdf5_column(const std::filesystem::path& path,
                                              const std::string& dataset, ColumnRole role) {
  return std::make_unique<Hdf5Column>(path, dataset, role);
}

}  // namespace tessera::trainer
