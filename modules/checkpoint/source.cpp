// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/source.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "comm/agree.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/checkpoint/hugging_face.hpp"

namespace tessera::checkpoint {
namespace {

/// Whether `path` is a directory (and not a file). Throws Error::file if it is neither. local.
bool is_model_directory(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) return true;
  if (std::filesystem::is_regular_file(status)) return false;
  fail(ErrorKind::file,
       "no checkpoint at {}: {} (there is no model to load) give a Hugging Face directory with "
       "config.json and safetensors, or a Tessera HDF5 file",
       path.string(),
       std::filesystem::exists(status) ? "neither a directory nor a file"
       : error                         ? error.message()
                                       : "no such file or directory");
}

}  // namespace

LoadReport& LoadReport::operator+=(const LoadReport& other) {
  planned_bytes += other.planned_bytes;
  read_bytes += other.read_bytes;
  exchanged_bytes += other.exchanged_bytes;
  peak_buffer_bytes = std::max(peak_buffer_bytes, other.peak_buffer_bytes);
  return *this;
}

std::unique_ptr<Source> Source::open(const comm::Communicator& world,
                                     const std::filesystem::path& path) {
  // Rank 0 decides for all: another node may see the file system a moment later.
  auto is_directory = comm::agreed(world, "look at the checkpoint", [&] {
    return world.rank() == 0 ? std::int32_t(is_model_directory(path)) : 0;
  });
  world.broadcast("checkpoint kind", std::span(&is_directory, 1), 0);
  if (is_directory != 0) return HuggingFaceSource::open(world, path);
  return Hdf5Source::open(world, path);
}

const TensorInfo* Source::find(const std::string& name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorInfo& tensor, const std::string& key) { return tensor.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace tessera::checkpoint
