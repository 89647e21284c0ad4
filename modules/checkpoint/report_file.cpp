// SPDX-License-Identifier: Apache-2.0
// Datasets are created collectively; their parts are written independently, since they are small
// and differ in number between ranks.
#include <set>
#include <tessera/checkpoint/flat_selection.hpp>
#include <tessera/checkpoint/report_file.hpp>
#include <vector>

#include "base/hdf5_handle.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_partial_file.hpp"
#include "hdf5_types.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

Hdf5Space space_of(const Shape& shape) {
  if (shape.empty()) return Hdf5Space(hdf5_id(H5Screate(H5S_SCALAR), "scalar dataspace"));
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  return Hdf5Space(
      hdf5_id(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), "dataspace"));
}

Hdf5File create_parallel(const comm::Communicator& world, const fs::path& path) {
  const Hdf5Properties access(hdf5_id(H5Pcreate(H5P_FILE_ACCESS), "file access properties"));
  hdf5_check(H5Pset_fapl_mpio(access.get(), world.mpi(), MPI_INFO_NULL), "MPI-IO access");
  return Hdf5File(hdf5_id(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                          "cannot create " + path.string()));
}

void write_box(hid_t dataset, const Box& box, const float* values) {
  const std::vector<hsize_t> start(box.start.begin(), box.start.end());
  const std::vector<hsize_t> count(box.count.begin(), box.count.end());
  const Hdf5Space file(hdf5_id(H5Dget_space(dataset), "dataspace"));
  hdf5_check(
      H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
      "selection");
  const Hdf5Space memory = space_of(box.count);
  hdf5_check(H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory.get(), file.get(), H5P_DEFAULT, values),
             "write");
}

/// values: a box [e, out, in] of Tessera's orientation, written as [e, in, out].
void write_box_transposed(hid_t dataset, const Box& box, const float* values) {
  const std::int64_t experts = box.count[0], rows = box.count[1], cols = box.count[2];
  std::vector<float> transposed(static_cast<std::size_t>(box.size()));
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        transposed[(e * cols + col) * rows + row] = values[(e * rows + row) * cols + col];
      }
    }
  }
  write_box(
      dataset,
      {{box.start[0], box.start[2], box.start[1]}, {box.count[0], box.count[2], box.count[1]}},
      transposed.data());
}

void write_slice(hid_t dataset, const Slice& slice, const float* values) {
  for (const Box& box : boxes_of_range(slice.parameter->shape, slice.begin, slice.end)) {
    if (slice.parameter->transposed) {
      write_box_transposed(dataset, box, values);
    } else {
      write_box(dataset, box, values);
    }
    values += box.size();
  }
}

}  // namespace

struct ReportFile::Impl {
  const comm::Communicator& world;
  fs::path path;
  QuietHdf5 quiet;
  Hdf5File file = {};
  bool is_committed = false;
  std::set<std::string> created = {};

  ~Impl() {
    const comm::Phase phase("close report", world.options().deadline);
    file.close();
    std::error_code ignored;
    if (!is_committed && world.rank() == 0) fs::remove(partial_path(path), ignored);
  }

  /// collective over world; errors are agreed.
  Hdf5Dataset create(const std::string& name, Dtype dtype, const Shape& shape) {
    created.insert(name);
    return comm::agreed(world, "create " + name,
                        [&] { return create_dataset(name, dtype, shape); });
  }
  /// The same, or the one that has that name already: several units hold parts of it.
  Hdf5Dataset create_or_open(const std::string& name, Dtype dtype, const Shape& shape) {
    if (!created.contains(name)) return create(name, dtype, shape);
    return comm::agreed(world, "open " + name, [&] {
      return Hdf5Dataset(
          hdf5_id(H5Dopen2(file.get(), ("/" + name).c_str(), H5P_DEFAULT), "cannot open " + name));
    });
  }
  /// collective over world; errors are not agreed.
  Hdf5Dataset create_dataset(const std::string& name, Dtype dtype, const Shape& shape) {
    const Hdf5Properties links(hdf5_id(H5Pcreate(H5P_LINK_CREATE), "link properties"));
    hdf5_check(H5Pset_create_intermediate_group(links.get(), 1), "link properties");
    const Hdf5Properties creation(hdf5_id(H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
    // Without times, equal results are equal files.
    hdf5_check(H5Pset_obj_track_times(creation.get(), false), "dataset properties");
    const Hdf5Space space = space_of(shape);
    return Hdf5Dataset(hdf5_id(H5Dcreate2(file.get(), ("/" + name).c_str(), hdf5_type(dtype).get(),
                                          space.get(), links.get(), creation.get(), H5P_DEFAULT),
                               "cannot create dataset " + name));
  }
  void write_f64(const std::string& name, const Shape& shape, const double* values) {
    const comm::Phase phase("write report", world.options().deadline);
    const Hdf5Dataset dataset = create(name, Dtype::f64, shape);
    comm::agreed(world, "write " + name, [&] {
      if (world.rank() != 0) return;
      hdf5_check(H5Dwrite(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values),
                 "cannot write " + name);
    });
  }
};

ReportFile::ReportFile(const comm::Communicator& world, fs::path path)
    : impl_(new Impl{world, std::move(path), {}}) {
  prepare_partial(world, impl_->path, 0);
  impl_->file = comm::agreed(world, "create report",
                             [&] { return create_parallel(world, partial_path(impl_->path)); });
}

ReportFile::~ReportFile() = default;

void ReportFile::write_scalar(const std::string& name, double value) {
  impl_->write_f64(name, {}, &value);
}

void ReportFile::write_values(const std::string& name, std::span<const double> values) {
  impl_->write_f64(name, {static_cast<std::int64_t>(values.size())}, values.data());
}

void ReportFile::write_part(const std::string& name, const Shape& shape, std::int64_t begin,
                            std::span<const float> values) {
  const comm::Phase phase("write report", impl_->world.options().deadline);
  const Hdf5Dataset dataset = impl_->create(name, Dtype::f32, shape);
  const Parameter whole{name, shape};
  comm::agreed(impl_->world, "write " + name, [&] {
    const auto size = static_cast<std::int64_t>(values.size());
    write_slice(dataset.get(), {&whole, begin, begin + size, 0}, values.data());
  });
}

void ReportFile::write_parameters(const std::string& group, std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<const float> shard) {
  const comm::Phase phase("write report", impl_->world.options().deadline);
  for (const Parameter& parameter : parameters) {
    const Hdf5Dataset dataset = impl_->create_or_open(group + "/" + parameter.name, Dtype::f32,
                                                      parameter.checkpoint_shape());
    comm::agreed(impl_->world, "write " + parameter.name, [&] {
      for (const Slice& slice : slices) {
        if (slice.parameter->name != parameter.name) continue;
        write_slice(dataset.get(), slice, shard.data() + slice.shard_offset);
      }
    });
  }
}

void ReportFile::commit() {
  const comm::Phase phase("write report", impl_->world.options().deadline);
  comm::agreed(impl_->world, "close report", [&] {
    if (impl_->file.close() < 0) fail_hdf5(ErrorKind::file, "cannot close " + impl_->path.string());
  });
  commit_partial(impl_->world, impl_->path);
  impl_->is_committed = true;
}

}  // namespace tessera::checkpoint
