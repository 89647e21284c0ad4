// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/hugging_face.hpp"

#include <algorithm>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hugging_face_directory.hpp"
#include "tensor_loader.hpp"
#include "tessera/checkpoint/encoding.hpp"

namespace tessera::checkpoint {

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
  source->tensors_ = std::move(found.tensors);
  return source;
}

bool HuggingFaceSource::has(const Parameter& parameter) const {
  const std::vector<StoredPart> stored = parts(parameter);
  return std::all_of(stored.begin(), stored.end(), [&](const StoredPart& part) {
    return find_part(*this, parameter, part).is_readable();
  });
}

Origin HuggingFaceSource::origin(const Parameter& parameter) const {
  Origin origin{.dtypes = {}};
  for (const StoredPart& part : parts(parameter)) {
    const EncodedPart encoded = find_part(*this, parameter, part);
    TESSERA_EXPECT(encoded.is_readable());
    if (encoded.encoding == Encoding::mxfp4) origin.mxfp4 = true;
    const bool is_plain = encoded.encoding == Encoding::plain;
    origin.dtypes.push_back(is_plain ? encoded.values->dtype : Dtype::bf16);
  }
  const bool are_alike = std::all_of(origin.dtypes.begin(), origin.dtypes.end(),
                                     [&](Dtype dtype) { return dtype == origin.dtypes.front(); });
  if (are_alike) origin.dtypes.resize(1);
  return origin;
}

std::int64_t HuggingFaceSource::stored_bytes(const Parameter& parameter) const {
  std::int64_t bytes = 0;
  for (const StoredPart& part : parts(parameter))
    bytes += encoded_bytes(find_part(*this, parameter, part), part);
  return bytes;
}

LoadReport HuggingFaceSource::load(const comm::ProcessGrid& grid,
                                   std::span<const Parameter> parameters,
                                   std::span<const Slice> slices, std::span<float> shard,
                                   const LoadOptions& options) {
  const comm::Phase phase("read checkpoint", grid.world().options().deadline);
  const ReadPlan plan = make_read_plan(grid, *this, parameters, slices, options.buffer_bytes);
  if (options.plan_only) return {plan.planned_bytes, 0, 0, plan.staging_bytes};
  expect(options, parameters);
  return TensorLoader(grid, path_, plan, shard, options).run();
}

}  // namespace tessera::checkpoint
