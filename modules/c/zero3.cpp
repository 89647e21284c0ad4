// SPDX-License-Identifier: Apache-2.0
// A caller's arrays over zero3: one unit for each, so that one at a time is whole.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <tessera/checkpoint/hdf5_store.hpp>
#include <tessera/zero3/grad_norm.hpp>
#include <tessera/zero3/optimizer.hpp>

#include "handles.hpp"
#include "kernel/allocate.hpp"
#include "status.hpp"

using namespace tessera;

struct tessera_zero3 {
  tessera_zero3(c::SharedGrid shared, std::vector<zero3::UnitSpec> specs)
      : grid(std::move(shared)), store(std::move(specs)) {
    for (std::size_t i = 0; i < store.num_units(); ++i) store.unit(i).allocate_moments();
  }

  c::SharedGrid grid;
  zero3::ParameterStore<float> store;
  std::int64_t num_steps = 0;
};

namespace {

using checkpoint::exp_avg_group;
using checkpoint::exp_avg_sq_group;
using checkpoint::parameters_group;

std::vector<zero3::UnitSpec> specs_of(const comm::ProcessGrid& grid, std::int64_t num_arrays,
                                      const char* const* names, const std::int64_t* sizes,
                                      const int* decays) {
  c::require(num_arrays > 0 && names != nullptr && sizes != nullptr,
             "tessera_zero3_create: there are no arrays, or names or sizes is NULL");
  std::vector<zero3::UnitSpec> specs;
  std::set<std::string> seen;
  for (std::int64_t i = 0; i < num_arrays; ++i) {
    c::require(names[i] != nullptr && sizes[i] > 0,
               "tessera_zero3_create: an array without name or elements");
    if (!seen.insert(names[i]).second)
      fail(ErrorKind::usage, "array '{}' is given twice", names[i]);
    Parameter parameter{.name = names[i], .shape = {sizes[i]}};
    parameter.weight_decay = decays == nullptr || decays[i] != 0;
    specs.push_back({names[i], {std::move(parameter)}, zero3::Placement::dense(grid)});
  }
  return specs;
}

/// What must be the same on all ranks.
std::string announcement(const std::vector<zero3::UnitSpec>& specs) {
  std::string text;
  for (const zero3::UnitSpec& spec : specs)
    text += fmt::format("{} [{}]{}; ", spec.name, spec.parameters[0].size(),
                        spec.parameters[0].weight_decay ? "" : " without decay");
  return text;
}

const zero3::Unit& unit_of(const tessera_zero3* arrays, std::int64_t array) {
  c::require(arrays != nullptr, "the arrays are NULL");
  const auto count = static_cast<std::int64_t>(arrays->store.num_units());
  if (array < 0 || array >= count)
    fail(ErrorKind::usage, "array {} does not exist (there are {}, counted from 0)", array, count);
  return arrays->store.unit(static_cast<std::size_t>(array));
}

/// This rank's part; empty where it has none.
Slice slice_of(const zero3::Unit& unit) {
  return unit.slices().empty() ? Slice{unit.parameters().data(), 0, 0, 0} : unit.slices()[0];
}

/// The index, after all ranks have found that it is one.
std::size_t agreed_index(const tessera_zero3* arrays, std::int64_t array,
                         bool has_pointers = true) {
  c::require(arrays != nullptr, "the arrays are NULL");
  comm::agreed(arrays->grid->world(), "arguments of a tessera_zero3 function", [&] {
    unit_of(arrays, array);
    c::require(has_pointers, "a pointer to values is NULL");
  });
  return static_cast<std::size_t>(array);
}

template <class Body>
void for_each_state(const zero3::Unit& unit, const Body& body) {
  body(parameters_group, unit.master());
  body(exp_avg_group, unit.exp_avg());
  body(exp_avg_sq_group, unit.exp_avg_sq());
}

void save(const tessera_zero3& arrays, const char* path, const tessera_fields* fields) {
  std::vector<checkpoint::DatasetSpec> datasets;
  for (std::size_t i = 0; i < arrays.store.num_units(); ++i) {
    const Parameter* parameter = arrays.store.unit(i).parameters().data();
    for (const char* group : {parameters_group, exp_avg_group, exp_avg_sq_group})
      datasets.push_back({group, parameter, Dtype::f32, {.dtypes = {Dtype::f32}}});
  }
  checkpoint::TrainingState state;
  state.step = state.optimizer_steps = arrays.num_steps;
  state.optimizer = "adamw";
  checkpoint::Hdf5Writer writer(arrays.grid->world(), path, datasets, state, {});
  for (std::size_t i = 0; i < arrays.store.num_units(); ++i) {
    const zero3::Unit& unit = arrays.store.unit(i);
    for_each_state(unit, [&](const char* group, const kernel::Vector<float>& shard) {
      const auto host = kernel::host_copy(shard);
      writer.write(group, unit.parameters(), unit.slices(), {host.data(), host.size()});
    });
  }
  writer.write_fields(c::fields_of(fields));
  writer.commit();
}

void load(tessera_zero3& arrays, const char* path) {
  const auto source = checkpoint::Hdf5Source::open(arrays.grid->world(), path);
  if (source->state().optimizer != "adamw") fail(ErrorKind::keys, "{} has no state of AdamW", path);
  arrays.store.open_masters();
  for (std::size_t i = 0; i < arrays.store.num_units(); ++i) {
    const zero3::Unit& unit = arrays.store.unit(i);
    for_each_state(unit, [&](const char* group, const kernel::Vector<float>& shard) {
      const auto host = kernel::host_mirror(shard);
      source->load_group(*arrays.grid, group, unit.parameters(), unit.slices(),
                         {host.data(), host.size()}, {});
      Kokkos::deep_copy(shard, host);
    });
  }
  arrays.num_steps = source->state().optimizer_steps;
}

zero3::GradNorm step(tessera_zero3& arrays, const tessera_adamw& adamw) {
  arrays.store.finish_reductions();
  const zero3::GradNorm norm = global_grad_norm(arrays.grid->world(), arrays.store, false);
  if (std::isfinite(norm.norm)) {
    const zero3::OptimizerOptions options{.beta1 = adamw.beta1,
                                          .beta2 = adamw.beta2,
                                          .epsilon = adamw.epsilon,
                                          .weight_decay = adamw.weight_decay};
    optimizer_step(arrays.store, options, adamw.learning_rate, ++arrays.num_steps,
                   zero3::clip_factor(norm.norm, adamw.max_norm));
  }
  arrays.store.zero_gradients();
  return norm;
}

}  // namespace

tessera_adamw tessera_adamw_defaults(void) { return {1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0}; }

tessera_status tessera_zero3_create(tessera_grid* grid, int64_t num_arrays,
                                    const char* const* names, const int64_t* sizes,
                                    const int* decays, tessera_zero3** arrays) {
  return c::guarded([&] {
    const c::SharedGrid& shared = c::shared(grid);
    const comm::Communicator& world = shared->world();
    std::vector<zero3::UnitSpec> specs;
    comm::agreed(world, "arguments of tessera_zero3_create", [&] {
      specs = specs_of(*shared, num_arrays, names, sizes, decays);
      c::require(arrays != nullptr, "tessera_zero3_create: zero3 is NULL");
    });
    const std::string own = announcement(specs), first = world.broadcast_string("arrays", own, 0);
    comm::agreed(world, "arrays of tessera_zero3_create", [&] {
      if (own != first)
        fail(ErrorKind::usage, "the arrays are {}here and {}on rank 0 (all ranks give the same)",
             own, first);
    });
    *arrays = new tessera_zero3(shared, std::move(specs));
  });
}

tessera_status tessera_zero3_range(const tessera_zero3* arrays, int64_t array, int64_t* begin,
                                   int64_t* count) {
  return c::guarded([&] {
    const Slice slice = slice_of(unit_of(arrays, array));
    if (begin != nullptr) *begin = slice.begin;
    if (count != nullptr) *count = slice.size();
  });
}

tessera_status tessera_zero3_set(tessera_zero3* arrays, int64_t array, const float* values) {
  return c::guarded([&] {
    const bool needs_values = arrays == nullptr || values != nullptr;
    const std::size_t i = agreed_index(arrays, array, needs_values);
    arrays->store.open_masters();
    const zero3::Unit& unit = arrays->store.unit(i);
    const Slice slice = slice_of(unit);
    const auto host = kernel::host_mirror(unit.master());
    Kokkos::deep_copy(host, unit.master());
    std::copy_n(values, slice.size(), host.data() + slice.shard_offset);
    Kokkos::deep_copy(unit.master(), host);
  });
}

tessera_status tessera_zero3_get(const tessera_zero3* arrays, int64_t array, float* values) {
  return c::guarded([&] {
    const zero3::Unit& unit = unit_of(arrays, array);
    c::require(values != nullptr, "tessera_zero3_get: values is NULL");
    const Slice slice = slice_of(unit);
    const auto host = kernel::host_copy(unit.master());
    std::copy_n(host.data() + slice.shard_offset, slice.size(), values);
  });
}

tessera_status tessera_zero3_prefetch(tessera_zero3* arrays, int64_t array) {
  return c::guarded([&] {
    unit_of(arrays, array);
    arrays->store.prefetch(static_cast<std::size_t>(array));
  });
}

tessera_status tessera_zero3_gather(tessera_zero3* arrays, int64_t array, const float** values) {
  return c::guarded([&] {
    unit_of(arrays, array);
    const float* whole = arrays->store.gather(static_cast<std::size_t>(array));
    if (values != nullptr) *values = whole;
  });
}

tessera_status tessera_zero3_release(tessera_zero3* arrays, int64_t array) {
  return c::guarded([&] {
    unit_of(arrays, array);
    arrays->store.release(static_cast<std::size_t>(array));
  });
}

tessera_status tessera_zero3_gradient(tessera_zero3* arrays, int64_t array, float** gradient) {
  return c::guarded([&] {
    unit_of(arrays, array);
    c::require(gradient != nullptr, "tessera_zero3_gradient: gradient is NULL");
    *gradient = arrays->store.gradient(static_cast<std::size_t>(array));
  });
}

tessera_status tessera_zero3_reduce(tessera_zero3* arrays, int64_t array) {
  return c::guarded([&] { arrays->store.reduce(agreed_index(arrays, array)); });
}

tessera_status tessera_zero3_step(tessera_zero3* arrays, const tessera_adamw* adamw, double* norm,
                                  int* updated) {
  return c::guarded([&] {
    agreed_index(arrays, 0, adamw != nullptr);
    const zero3::GradNorm result = step(*arrays, *adamw);
    if (norm != nullptr) *norm = result.norm;
    if (updated != nullptr) *updated = std::isfinite(result.norm) ? 1 : 0;
  });
}

tessera_status tessera_zero3_save(const tessera_zero3* arrays, const char* path,
                                  const tessera_fields* fields) {
  return c::guarded([&] {
    agreed_index(arrays, 0, path != nullptr);
    save(*arrays, path, fields);
  });
}

tessera_status tessera_zero3_load(tessera_zero3* arrays, const char* path) {
  return c::guarded([&] {
    agreed_index(arrays, 0, path != nullptr);
    load(*arrays, path);
  });
}

void tessera_zero3_destroy(tessera_zero3* arrays) { delete arrays; }
