// SPDX-License-Identifier: Apache-2.0
// One flipped bit anywhere in a Tessera file is found: in the data by its fingerprint, in HDF5's
// own structures by their checksums.
#define H5_USE_110_API  // H5Ovisit2 as in HDF5 1.10, from whatever version
#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <random>

#include "hdf5_fixture.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/verify.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using comm::ProcessGrid;

namespace fs = std::filesystem;

namespace {

constexpr int num_flips_to_find = 1000;

/// Where HDF5 keeps what, by its own account.
struct Map {
  std::map<std::int64_t, std::pair<std::int64_t, std::string>> datasets;  ///< begin -> end, path
  std::int64_t data_bytes = 0;
  std::int64_t metadata_bytes = 0;  ///< superblock, headers, heaps and indices
  std::int64_t file_bytes = 0;

  /// Of the dataset that the byte belongs to; empty for none.
  std::string path_at(std::int64_t byte) const {
    auto next = datasets.upper_bound(byte);
    if (next == datasets.begin()) return "";
    const auto& [begin, rest] = *std::prev(next);
    return byte < rest.first ? rest.second : "";
  }
};

/// Bytes that may matter: those of datasets, and others outside long runs of zeros, which are what
/// HDF5 has allocated and not used.
std::vector<std::int64_t> bytes_to_flip(const fs::path& path, const Map& map) {
  constexpr std::int64_t long_run = 2048;
  std::ifstream file(path, std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(file), {});
  std::vector<std::int64_t> bytes;
  for (std::int64_t at = 0; at < std::ssize(content);) {
    std::int64_t end = at;
    while (end < std::ssize(content) && content[std::size_t(end)] == 0 && map.path_at(end).empty())
      ++end;
    if (end - at < long_run)
      for (std::int64_t byte = at; byte < end; ++byte) bytes.push_back(byte);
    if (end < std::ssize(content)) bytes.push_back(end);
    at = end + 1;
  }
  return bytes;
}

herr_t visit(hid_t file, const char* name, const H5O_info_t* info, void* data) {
  Map& map = *static_cast<Map*>(data);
  map.metadata_bytes += std::int64_t(
      info->hdr.space.total + info->meta_size.obj.index_size + info->meta_size.obj.heap_size +
      info->meta_size.attr.index_size + info->meta_size.attr.heap_size);
  if (info->type != H5O_TYPE_DATASET) return 0;
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  const auto begin = std::int64_t(H5Dget_offset(dataset));
  const auto bytes = std::int64_t(H5Dget_storage_size(dataset));
  H5Dclose(dataset);
  map.datasets[begin] = {begin + bytes, fmt::format("/{}", name)};
  map.data_bytes += bytes;
  return 0;
}

Map map_of(const fs::path& path) {
  Map map;
  map.file_bytes = std::int64_t(fs::file_size(path));
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  H5F_info2_t info{};
  H5Fget_info2(file, &info);
  map.metadata_bytes = std::int64_t(info.super.super_size + info.super.super_ext_size);
  H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, visit, &map, H5O_INFO_ALL);
  H5Fclose(file);
  return map;
}

/// Everything that a file says, its tensors apart, whose fingerprints are among it.
std::string content(const Hdf5Source& source) {
  const TrainingState& state = source.state();
  std::string text =
      fmt::format("{} {} {} {} {} {}\n", state.step, state.optimizer_steps, state.data_position,
                  state.seed, state.optimizer, state.training_json);
  for (const auto& [name, file] : source.files()) text += name + "=" + file + "\n";
  for (const StoredDataset& dataset : source.datasets()) {
    text += fmt::format("{} {} {} {} {} {}", dataset.path(), to_string(dataset.info.dtype),
                        to_string(dataset.info.shape), dataset.is_transposed, dataset.is_expert,
                        dataset.origin.mxfp4);
    for (const Dtype dtype : dataset.origin.dtypes) text += to_string(dtype);
    for (const Fingerprint& f : dataset.fingerprint.experts) text += to_string(f);
    text += "\n";
  }
  return text;
}

/// What is said of the file as it is now: of what differs, or its whole content if nothing does.
struct Finding {
  std::string refusal;
  std::vector<std::string> differences;
  std::string said;
};

Finding look_at(const ProcessGrid& grid, const fs::path& path) {
  Finding finding;
  try {
    const auto source = Hdf5Source::open(grid.world(), path);
    finding.differences = verify_file(grid, *source).differences;
    finding.said = content(*source);
  } catch (const Error& error) {
    finding.refusal = error.what();
  }
  return finding;
}

class FlippedBit {
 public:
  FlippedBit(const fs::path& path, std::int64_t byte, int bit)
      : descriptor_(::open(path.c_str(), O_RDWR)), byte_(byte), bit_(bit) {
    flip();
  }
  ~FlippedBit() {
    flip();
    ::close(descriptor_);
  }
  FlippedBit(const FlippedBit&) = delete;
  FlippedBit& operator=(const FlippedBit&) = delete;

 private:
  void flip() {
    unsigned char value = 0;
    if (::pread(descriptor_, &value, 1, byte_) != 1) std::abort();
    value = static_cast<unsigned char>(value ^ (1u << bit_));
    if (::pwrite(descriptor_, &value, 1, byte_) != 1) std::abort();
  }

  int descriptor_;
  std::int64_t byte_;
  int bit_;
};

}  // namespace

TEST_CASE(
    "1,000 flipped bits are found and named; only bytes that HDF5 does not use go unnoticed") {
  const ProcessGrid grid(MPI_COMM_SELF, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  test::Checkpoint checkpoint;
  checkpoint.mxfp4 = test::mxfp4_unit();
  checkpoint.dense.parameters[2].shape = {40, 35};
  checkpoint.files["tokenizer.json"] = std::string(2000, 't');
  checkpoint.save(grid, path);
  const Map map = map_of(path);
  const Finding whole = look_at(grid, path);
  CHECK(whole.refusal == "");
  REQUIRE(whole.differences.empty());

  std::mt19937_64 random(20240607);
  // By HDF5's own account, no more is left out than it does not use.
  const std::vector<std::int64_t> bytes = bytes_to_flip(path, map);
  const std::int64_t num_unused_bytes = map.file_bytes - map.data_bytes - map.metadata_bytes;
  CHECK(map.file_bytes - std::ssize(bytes) <= num_unused_bytes);
  int num_in_data = 0, num_in_metadata = 0, num_unused = 0;
  while (num_in_data + num_in_metadata < num_flips_to_find) {
    const std::int64_t byte = bytes[random() % bytes.size()];
    const FlippedBit flipped(path, byte, int(random() % 8));
    const Finding finding = look_at(grid, path);
    const std::string owner = map.path_at(byte);
    INFO("byte " << byte << " of '" << owner << "': " << finding.refusal);
    if (!owner.empty()) {
      ++num_in_data;
      REQUIRE(finding.differences.size() == 1);
      REQUIRE_THAT(finding.differences[0] + ":", Catch::Contains(owner));
    } else if (!finding.refusal.empty()) {
      ++num_in_metadata;
      REQUIRE_THAT(finding.refusal, Catch::Contains("model.h5"));
    } else {
      ++num_unused;
      REQUIRE(finding.differences.empty());
      REQUIRE(finding.said == whole.said);
    }
  }
  CHECK(num_in_data > 500);
  CHECK(num_in_metadata > 100);
  CHECK(num_unused < num_flips_to_find / 4);
}
