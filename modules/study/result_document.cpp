// SPDX-License-Identifier: Apache-2.0
#include "result_document.hpp"

#include "base/error.hpp"
#include "base/hdf5_handle.hpp"

namespace tessera::study {
namespace {

void write(hid_t file, const std::string& name, hid_t type, const void* values, hsize_t count) {
  const Hdf5Space space(hdf5_id(H5Screate_simple(1, &count, nullptr), name));
  const Hdf5Dataset dataset(hdf5_id(
      H5Dcreate2(file, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      name));
  if (count == 0) return;
  hdf5_check(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), name);
}

/// An array of bytes: no padding, any length.
void write_text(hid_t file, const std::string& name, const std::string& text) {
  write(file, name, H5T_NATIVE_CHAR, text.data(), text.size());
}

template <class T>
std::vector<T> read(hid_t dataset, hid_t type, hsize_t count, const std::string& name) {
  std::vector<T> values(count);
  if (count > 0) {
    hdf5_check(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), name);
  }
  return values;
}

void read_dataset(hid_t file, const std::string& name, ResultDocument& document) {
  constexpr hsize_t most = hsize_t{1} << 24;
  const Hdf5Dataset dataset(hdf5_id(H5Dopen2(file, name.c_str(), H5P_DEFAULT), name));
  const Hdf5Space space(hdf5_id(H5Dget_space(dataset.get()), name));
  const Hdf5Type type(hdf5_id(H5Dget_type(dataset.get()), name));
  hsize_t count = 0;
  if (H5Sget_simple_extent_ndims(space.get()) != 1 ||
      H5Sget_simple_extent_dims(space.get(), &count, nullptr) < 0 || count > most) {
    fail(ErrorKind::format, "{} is no list of at most {} values", name, most);
  }
  if (H5Tget_class(type.get()) == H5T_FLOAT) {
    document.numbers[name] = read<double>(dataset.get(), H5T_NATIVE_DOUBLE, count, name);
  } else if (H5Tget_class(type.get()) == H5T_INTEGER && H5Tget_size(type.get()) == 1) {
    const auto bytes = read<char>(dataset.get(), H5T_NATIVE_CHAR, count, name);
    document.texts[name] = std::string(bytes.begin(), bytes.end());
  } else if (H5Tget_class(type.get()) == H5T_INTEGER) {
    document.counts[name] = read<std::int64_t>(dataset.get(), H5T_NATIVE_INT64, count, name);
  }
}

herr_t collect_name(hid_t, const char* name, const H5L_info_t* info, void* names) {
  // Links elsewhere are nothing that this program writes.
  if (info->type == H5L_TYPE_HARD) static_cast<std::vector<std::string>*>(names)->push_back(name);
  return 0;
}

template <class Map>
const auto& value_of(const Map& map, const std::string& name, const std::string& path) {
  const auto found = map.find(name);
  if (found == map.end()) {
    fail(ErrorKind::format,
         "{}: {} is missing (no result of tessera study run, or another version)", path, name);
  }
  return found->second;
}

}  // namespace

void ResultDocument::save(const std::filesystem::path& path) const {
  const QuietHdf5 quiet;
  const std::filesystem::path partial = path.string() + ".partial";
  {
    const Hdf5File file(
        hdf5_id(H5Fcreate(partial.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), partial));
    for (const auto& [name, text] : texts) write_text(file.get(), name, text);
    for (const auto& [name, values] : numbers) {
      write(file.get(), name, H5T_NATIVE_DOUBLE, values.data(), values.size());
    }
    for (const auto& [name, values] : counts) {
      write(file.get(), name, H5T_NATIVE_INT64, values.data(), values.size());
    }
    hdf5_check(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), partial);
  }
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) fail(ErrorKind::file, "cannot rename {}: {}", partial.string(), error.message());
}

ResultDocument ResultDocument::load(const std::filesystem::path& path) {
  const QuietHdf5 quiet;
  ResultDocument document;
  document.path_ = path.string();
  const Hdf5File file(hdf5_id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), path));
  std::vector<std::string> names;
  hdf5_check(H5Literate(file.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names),
             path, ErrorKind::format);
  for (const std::string& name : names) read_dataset(file.get(), name, document);
  return document;
}

const std::string& ResultDocument::text(const std::string& name) const {
  return value_of(texts, name, path_);
}
const std::vector<double>& ResultDocument::number(const std::string& name) const {
  return value_of(numbers, name, path_);
}
const std::vector<std::int64_t>& ResultDocument::count(const std::string& name) const {
  return value_of(counts, name, path_);
}

}  // namespace tessera::study
