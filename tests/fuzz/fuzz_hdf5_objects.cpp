// SPDX-License-Identifier: Apache-2.0
// Objects that HDF5 lets a file have and a Tessera file may not: the metadata's checksums would
// stop a fuzzer that changes bytes, so here the input chooses which groups, links, datasets and
// attributes a file has, and HDF5 writes it.
#include <array>
#include <vector>

#include "fuzz.hpp"
#include "hdf5_attributes.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_types.hpp"

using namespace tessera;
using namespace tessera::checkpoint;

namespace {

/// The input as a sequence of choices; zeros follow its end.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : text_(fuzz::text_of(data, size)) {}

  bool at_end() const { return text_.empty(); }
  std::size_t below(std::size_t count) {
    if (text_.empty()) return 0;
    const auto byte = static_cast<unsigned char>(text_.front());
    text_.remove_prefix(1);
    return byte % count;
  }
  template <class Value, std::size_t N>
  Value of(const std::array<Value, N>& values) {
    return values[below(N)];
  }

 private:
  std::string_view text_;
};

Hdf5Type string_type(std::size_t bytes) {
  Hdf5Type type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), bytes);
  return type;
}

Hdf5Type choose_type(Choices& choices) {
  switch (choices.below(10)) {
    case 0: return hdf5_type(Dtype::f32);
    case 1: return hdf5_type(Dtype::bf16);
    case 2: return hdf5_type(Dtype::u8);
    case 3: return Hdf5Type(H5Tcopy(H5T_STD_I64LE));
    case 4: return Hdf5Type(H5Tcopy(H5T_STD_U64BE));
    case 5: return string_type(H5T_VARIABLE);
    case 6: return string_type(1 + choices.below(256) * 1024);
    case 7: return Hdf5Type(H5Tvlen_create(H5T_IEEE_F32LE));
    case 8: return Hdf5Type(H5Tcopy(H5T_STD_REF_OBJ));
    default: {
      Hdf5Type compound(H5Tcreate(H5T_COMPOUND, 8));
      H5Tinsert(compound.get(), "a", 0, H5T_IEEE_F32LE);
      return compound;
    }
  }
}

constexpr std::array<hsize_t, 5> small_extents{1, 2, 32, 0, 33};
constexpr std::array<hsize_t, 7> extents{1, 2, 32, 0, 33, hsize_t(1) << 31, hsize_t(1) << 62};

template <std::size_t N>
Hdf5Space choose_space(Choices& choices, const std::array<hsize_t, N>& some, std::size_t max_rank) {
  const std::size_t rank = choices.below(max_rank + 2);
  if (rank == 0) return Hdf5Space(H5Screate(H5S_SCALAR));
  if (rank > max_rank) return Hdf5Space(H5Screate(H5S_NULL));
  std::vector<hsize_t> shape(rank);
  for (hsize_t& extent : shape) extent = choices.of(some);
  return Hdf5Space(H5Screate_simple(int(rank), shape.data(), nullptr));
}

struct AttributeName {
  const char* name;
  bool is_text;
};

/// Mostly of the type that the format wants, so that the walk gets beyond it.
void choose_attribute(hid_t object, const AttributeName& wanted, Choices& choices) {
  constexpr std::array texts{
      "checkpoint", "expert,out,in", "expert", "dense", "bf16", "bf16,f32", "f8", "", ",", "{}"};
  constexpr std::array<std::int64_t, 6> numbers{0, 1, 2, 3, -1, std::int64_t(1) << 62};
  const std::string text = choices.of(texts);
  const std::int64_t number = choices.of(numbers);
  const std::size_t kind = choices.below(16);
  if (kind == 15) return;
  if (kind < 13 && wanted.is_text) return write_attribute(object, wanted.name, text);
  if (kind < 13) return write_attribute(object, wanted.name, number);
  const Hdf5Type type = choose_type(choices);
  const Hdf5Space space = choose_space(choices, small_extents, 1);
  Hdf5Attribute(H5Acreate2(object, wanted.name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
}

void choose_fingerprints(hid_t dataset, Choices& choices) {
  const std::array<hsize_t, 2> extent{choices.below(4), 2 + choices.below(8) / 7};
  const Hdf5Space space(H5Screate_simple(2, extent.data(), nullptr));
  const Hdf5Type type =
      choices.below(8) == 7 ? choose_type(choices) : Hdf5Type(H5Tcopy(H5T_STD_U64LE));
  const Hdf5Attribute attribute(
      H5Acreate2(dataset, "fingerprints", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
}

Hdf5Properties choose_storage(Choices& choices) {
  Hdf5Properties properties(H5Pcreate(H5P_DATASET_CREATE));
  const hid_t id = properties.get();
  H5Pset_fill_time(id, H5D_FILL_TIME_NEVER);
  const std::array<hsize_t, 3> chunk{1, 1, 1};
  const std::size_t kind = choices.below(12);
  if (kind < 6) H5Pset_alloc_time(id, H5D_ALLOC_TIME_EARLY);
  if (kind == 7) H5Pset_layout(id, H5D_COMPACT);
  if (kind == 8) H5Pset_external(id, "/dev/null", 0, H5F_UNLIMITED);
  if (kind >= 9 && kind < 11) H5Pset_chunk(id, 1 + int(choices.below(3)), chunk.data());
  if (kind == 10) H5Pset_fletcher32(id);
  if (kind == 11) {
    const Hdf5Space space = choose_space(choices, extents, 3);
    H5Pset_virtual(id, space.get(), "other.h5", "/data", space.get());
  }
  return properties;
}

void choose_dataset(hid_t file, const char* path, hid_t creation, Choices& choices) {
  const Hdf5Type type = choose_type(choices);
  const Hdf5Space space = choose_space(choices, extents, 3);
  const Hdf5Properties storage = choose_storage(choices);
  // What takes more than memory is only described.
  if (H5Sget_simple_extent_npoints(space.get()) > 1 << 20)
    H5Pset_alloc_time(storage.get(), H5D_ALLOC_TIME_LATE);
  const Hdf5Dataset dataset(
      H5Dcreate2(file, path, type.get(), space.get(), creation, storage.get(), H5P_DEFAULT));
  if (!dataset) return;
  for (const AttributeName& name : {AttributeName{"orientation", true},
                                    {"checkpoint_transposed", false},
                                    {"placement", true},
                                    {"checkpoint_dtypes", true},
                                    {"checkpoint_mxfp4", false}})
    choose_attribute(dataset.get(), name, choices);
  choose_fingerprints(dataset.get(), choices);
}

void choose_object(hid_t file, Choices& choices) {
  constexpr std::array paths{"parameters/a",   "parameters/b",       "optimizer/m/a",
                             "mxfp4_scales/a", "optimizer/m/a/deep", "files/a",
                             "files/b",        "parameters"};
  const char* path = choices.of(paths);
  const Hdf5Properties creation(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(creation.get(), 1);
  const hid_t id = creation.get();
  switch (choices.below(12)) {
    case 7: H5Lcreate_soft("/parameters/b", file, path, id, H5P_DEFAULT); break;
    case 8: H5Lcreate_external("other.h5", "/a", file, path, id, H5P_DEFAULT); break;
    case 9: H5Lcreate_hard(file, choices.of(paths), file, path, id, H5P_DEFAULT); break;
    case 10: Hdf5Group(H5Gcreate2(file, path, id, H5P_DEFAULT, H5P_DEFAULT)); break;
    case 11:
      H5Tcommit2(file, path, choose_type(choices).get(), id, H5P_DEFAULT, H5P_DEFAULT);
      break;
    default: choose_dataset(file, path, id, choices);
  }
}

void write_file(const std::filesystem::path& path, Choices& choices) {
  const Hdf5Properties access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  const Hdf5File file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
  if (!file) fuzz::stop(hdf5_error_text().c_str());
  if (choices.below(8) != 7) {
    write_attribute(file.get(), "format", std::string("tessera"));
    write_attribute(file.get(), "format_version", std::int64_t(1 + choices.below(4) % 3));
  }
  for (const AttributeName& name : {AttributeName{"step", false},
                                    {"optimizer_steps", false},
                                    {"data_position", false},
                                    {"seed", false},
                                    {"optimizer", true},
                                    {"training_json", true}})
    choose_attribute(file.get(), name, choices);
  for (int k = 0; k < 8 && !choices.at_end(); ++k) choose_object(file.get(), choices);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const QuietHdf5 quiet;
  const fuzz::InputFile file("");
  Choices choices(data, size);
  write_file(file.path(), choices);
  fuzz::expect_read_or_refused([&] {
    const FileDescription description = describe_file(file.path(), 0);
    for (const StoredDataset& dataset : description.datasets)
      if (dataset.info.bytes() > description.file_bytes) fuzz::stop("data beyond the file");
  });
  return 0;
}
