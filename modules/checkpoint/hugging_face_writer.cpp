// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/hugging_face_writer.hpp"

#include <numeric>
#include <optional>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "output_directory.hpp"
#include "tensor_writer.hpp"

namespace tessera::checkpoint {
namespace {

/// What is beside the tensors: the files that came with the model, and the index.
std::vector<OutputFileSpec> small_files(const ExportPlan& plan, EmbeddedFiles files) {
  const std::string index = plan.index_json();
  if (!index.empty()) files["model.safetensors.index.json"] = index;
  std::vector<OutputFileSpec> specs;
  for (const auto& [name, content] : files) {
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos)
      fail(ErrorKind::usage, "'{}' cannot be the name of an exported file", name);
    specs.push_back({name, content, std::ssize(content)});
  }
  return specs;
}

}  // namespace

struct HuggingFaceWriter::Impl {
  Impl(const comm::Communicator& world, std::filesystem::path path)
      : world(world), directory(world, std::move(path)) {}

  const comm::Communicator& world;
  OutputDirectory directory;
  ExportPlan plan;
  std::vector<OutputFileSpec> files;  ///< of all sizes, in rank 0's view
  std::optional<TensorWriter> writer;
  std::exception_ptr error;  ///< the first one of write()

  void require_complete() const;
};

// The files have their full size from the beginning: what nobody wrote would be zeros.
void HuggingFaceWriter::Impl::require_complete() const {
  std::vector<std::int64_t> written = writer->written_bytes();
  if (written.empty()) return;
  world.all_reduce("exported bytes", std::span<std::int64_t>(written), comm::ReduceOp::sum);
  for (std::size_t k = 0; k < written.size(); ++k) {
    const ExportTensor& tensor = plan.tensors[k];
    if (written[k] == tensor.bytes()) continue;
    fail(ErrorKind::internal, "cannot finish {}: {} of {} bytes of '{}' were written",
         directory.path().string(), written[k], tensor.bytes(), tensor.name);
  }
}

HuggingFaceWriter::HuggingFaceWriter(const comm::Communicator& world,
                                     std::filesystem::path directory,
                                     std::span<const Parameter> parameters, const Origins& origins,
                                     const EmbeddedFiles& files, const ExportOptions& options)
    : impl_(std::make_unique<Impl>(world, std::move(directory))) {
  const comm::Phase phase("begin export", world.options().deadline);
  impl_->plan = plan_export(parameters, origins, options);
  comm::agreed(world, "plan export", [&] {
    impl_->files = small_files(impl_->plan, files);
    for (const ExportFile& file : impl_->plan.files)
      impl_->files.push_back({file.name, file.header, file.bytes});
    impl_->writer.emplace(impl_->plan, impl_->directory.partial(), world.rank());
  });
  impl_->directory.lay_out(impl_->files, options.overwrite);
}

HuggingFaceWriter::~HuggingFaceWriter() = default;

void HuggingFaceWriter::write(std::span<const Slice> slices, std::span<const float> shard,
                              const ScaleShards& scales) {
  const comm::Phase phase("write export", impl_->world.options().deadline);
  if (impl_->error) return;
  try {
    for (const Slice& slice : slices) {
      TESSERA_EXPECT(slice.shard_offset + slice.size() <= std::ssize(shard));
      const auto found = scales.find(slice.parameter->name);
      impl_->writer->write(
          slice, shard.subspan(std::size_t(slice.shard_offset), std::size_t(slice.size())),
          found == scales.end() ? std::span<const std::uint8_t>() : found->second);
    }
  } catch (...) {
    impl_->error = std::current_exception();
  }
}

void HuggingFaceWriter::commit() {
  const comm::Communicator& world = impl_->world;
  const comm::Phase phase("commit export", world.options().deadline);
  comm::agree(world, "write export", impl_->error);
  impl_->require_complete();
  comm::agreed(world, "flush export", [&] { impl_->writer->flush(); });
  impl_->directory.commit(impl_->files);
}

std::int64_t HuggingFaceWriter::written_bytes() const {
  const std::vector<std::int64_t>& written = impl_->writer->written_bytes();
  return std::accumulate(written.begin(), written.end(), std::int64_t{0});
}

}  // namespace tessera::checkpoint
