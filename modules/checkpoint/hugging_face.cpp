// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/hugging_face.hpp"

#include <algorithm>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hugging_face_directory.hpp"
#include "tensor_loader.hpp"

namespace tessera::checkpoint {

struct HuggingFaceSource::Impl {
  std::vector<StoredTensor> tensors;  ///< in the order of Source::tensors_

  const StoredTensor* find(const std::string& name) const {
    const auto found = std::lower_bound(
        tensors.begin(), tensors.end(), name,
        [](const StoredTensor& tensor, const std::string& key) { return tensor.info.name < key; });
    return found != tensors.end() && found->info.name == name ? &*found : nullptr;
  }
};

HuggingFaceSource::~HuggingFaceSource() = default;

std::unique_ptr<HuggingFaceSource> HuggingFaceSource::open(const comm::Communicator& world,
                                                           const std::filesystem::path& directory) {
  const comm::Phase phase("open checkpoint", world.options().deadline);
  std::string text = comm::agreed(world, "read the headers", [&] {
    if (world.rank() != 0) return std::string();
    return scan_hugging_face_directory(directory, world.rank()).serialise();
  });
  text = world.broadcast_string("headers", std::move(text), 0);
  HuggingFaceDirectory found = HuggingFaceDirectory::deserialise(text);
  std::unique_ptr<HuggingFaceSource> source(new HuggingFaceSource);
  source->path_ = directory;
  source->config_json_ = std::move(found.config_json);
  source->files_ = std::move(found.files);
  for (const StoredTensor& tensor : found.tensors) source->tensors_.push_back(tensor.info);
  source->impl_ = std::make_unique<Impl>(Impl{std::move(found.tensors)});
  return source;
}

LoadReport HuggingFaceSource::load(const comm::ProcessGrid& grid,
                                   std::span<const Parameter> parameters,
                                   std::span<const Slice> slices, std::span<float> shard,
                                   const LoadOptions& options) {
  const comm::Phase phase("read checkpoint", grid.world().options().deadline);
  const auto lookup = [this](const Parameter& parameter) { return impl_->find(parameter.name); };
  const ReadPlan plan = make_read_plan(grid, parameters, slices, lookup, options.buffer_bytes);
  return TensorLoader(grid, path_, plan, shard).run();
}

}  // namespace tessera::checkpoint
