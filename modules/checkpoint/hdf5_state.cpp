// SPDX-License-Identifier: Apache-2.0
#include "hdf5_state.hpp"

#include <fmt/format.h>

#include "base/version.hpp"
#include "hdf5_attributes.hpp"
#include "hdf5_file.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t max_count = std::int64_t(1) << 62;  // leaves room for sums of such numbers

std::int64_t read_count(hid_t file, const char* name) {
  const std::int64_t value = read_int64_attribute(file, name);
  if (value < 0 || value > max_count) {
    fail(ErrorKind::format, "attribute '{}' is {} but must lie between 0 and {}", name, value,
         max_count);
  }
  return value;
}

}  // namespace

void write_state(hid_t file, const TrainingState& state) {
  write_attribute(file, "format", std::string(format_name));
  write_attribute(file, "format_version", format_version);
  write_attribute(file, "created_by", "tessera " + version());
  write_attribute(file, "step", state.step);
  write_attribute(file, "optimizer_steps", state.optimizer_steps);
  write_attribute(file, "data_position", state.data_position);
  write_attribute(file, "seed", state.seed);
  write_attribute(file, "optimizer", state.optimizer);
  write_attribute(file, "training_json", state.training_json);
}

std::int64_t read_version(hid_t file) {
  if (!has_attribute(file, "format") || read_string_attribute(file, "format") != format_name) {
    fail(ErrorKind::format,
         "an HDF5 file, but not a Tessera checkpoint (root attribute 'format' is not "
         "'{}')",
         format_name);
  }
  const std::int64_t version = read_int64_attribute(file, "format_version");
  if (version > format_version) {
    fail(ErrorKind::format,
         "format version {} is newer than this Tessera, which knows up to {} (its "
         "content could be misread) use a newer Tessera",
         version, format_version);
  }
  if (version < 1) fail(ErrorKind::format, "format version {} does not exist", version);
  return version;
}

TrainingState read_state(hid_t file) {
  TrainingState state;
  state.step = read_count(file, "step");
  state.optimizer_steps = read_count(file, "optimizer_steps");
  state.data_position = read_count(file, "data_position");
  state.seed = read_uint64_attribute(file, "seed");
  state.optimizer = read_string_attribute(file, "optimizer");
  state.training_json = read_string_attribute(file, "training_json");
  return state;
}

}  // namespace tessera::checkpoint
