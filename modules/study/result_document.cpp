// SPDX-License-Identifier: Apache-2.0
#include "result_document.hpp"

#include <hdf5.h>

#include "base/error.hpp"

namespace tessera::study {
namespace {

/// An identifier that closes itself.
struct Handle {
  hid_t id;
  herr_t (*close)(hid_t);
  Handle(hid_t id, herr_t (*close)(hid_t), const std::string& what) : id(id), close(close) {
    if (id < 0) fail(ErrorKind::file, "HDF5 cannot {}", what);
  }
  ~Handle() { close(id); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

/// HDF5's own messages are not shown while it lives.
struct Quiet {
  H5E_auto2_t print = nullptr;
  void* data = nullptr;
  Quiet() {
    H5Eget_auto2(H5E_DEFAULT, &print, &data);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~Quiet() { H5Eset_auto2(H5E_DEFAULT, print, data); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};

void write(hid_t file, const std::string& name, hid_t type, const void* values, hsize_t count) {
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, "describe " + name);
  const Handle dataset(
      H5Dcreate2(file, name.c_str(), type, space.id, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      H5Dclose, "create " + name);
  if (count > 0 && H5Dwrite(dataset.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
    fail(ErrorKind::file, "HDF5 cannot write {}", name);
  }
}

/// An array of bytes: no padding, any length.
void write_text(hid_t file, const std::string& name, const std::string& text) {
  write(file, name, H5T_NATIVE_CHAR, text.data(), text.size());
}

template <class T>
std::vector<T> read(hid_t dataset, hid_t type, hsize_t count, const std::string& name) {
  std::vector<T> values(count);
  if (count > 0 && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
    fail(ErrorKind::file, "HDF5 cannot read {}", name);
  }
  return values;
}

void read_dataset(hid_t file, const std::string& name, ResultDocument& document) {
  constexpr hsize_t most = hsize_t{1} << 24;
  const Handle dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, "open " + name);
  const Handle space(H5Dget_space(dataset.id), H5Sclose, "describe " + name);
  const Handle type(H5Dget_type(dataset.id), H5Tclose, "describe " + name);
  hsize_t count = 0;
  if (H5Sget_simple_extent_ndims(space.id) != 1 ||
      H5Sget_simple_extent_dims(space.id, &count, nullptr) < 0 || count > most) {
    fail(ErrorKind::format, "{} is no list of at most {} values", name, most);
  }
  if (H5Tget_class(type.id) == H5T_FLOAT) {
    document.numbers[name] = read<double>(dataset.id, H5T_NATIVE_DOUBLE, count, name);
  } else if (H5Tget_class(type.id) == H5T_INTEGER && H5Tget_size(type.id) == 1) {
    const auto bytes = read<char>(dataset.id, H5T_NATIVE_CHAR, count, name);
    document.texts[name] = std::string(bytes.begin(), bytes.end());
  } else if (H5Tget_class(type.id) == H5T_INTEGER) {
    document.counts[name] = read<std::int64_t>(dataset.id, H5T_NATIVE_INT64, count, name);
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
  const Quiet quiet;
  const std::filesystem::path partial = path.string() + ".partial";
  {
    const Handle file(H5Fcreate(partial.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose,
                      "create " + partial.string());
    for (const auto& [name, text] : texts) write_text(file.id, name, text);
    for (const auto& [name, values] : numbers) {
      write(file.id, name, H5T_NATIVE_DOUBLE, values.data(), values.size());
    }
    for (const auto& [name, values] : counts) {
      write(file.id, name, H5T_NATIVE_INT64, values.data(), values.size());
    }
    if (H5Fflush(file.id, H5F_SCOPE_GLOBAL) < 0) {
      fail(ErrorKind::file, "HDF5 cannot write {}", partial.string());
    }
  }
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) fail(ErrorKind::file, "cannot rename {}: {}", partial.string(), error.message());
}

ResultDocument ResultDocument::load(const std::filesystem::path& path) {
  const Quiet quiet;
  ResultDocument document;
  document.path_ = path.string();
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                    "open " + path.string());
  std::vector<std::string> names;
  if (H5Literate(file.id, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names) < 0) {
    fail(ErrorKind::format, "HDF5 cannot list {}", path.string());
  }
  for (const std::string& name : names) read_dataset(file.id, name, document);
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
