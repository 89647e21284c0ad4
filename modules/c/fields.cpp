// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "handles.hpp"
#include "status.hpp"

namespace tessera::c {

checkpoint::FieldBox field_box(const char* name, tessera_type type, int num_dimensions,
                               const std::int64_t* shape, const std::int64_t* start,
                               const std::int64_t* count) {
  constexpr std::array types{Dtype::f32, Dtype::f64, Dtype::i32, Dtype::i64, Dtype::u8};
  require(name != nullptr && shape != nullptr && start != nullptr && count != nullptr,
          "a field's name, shape, start or count is NULL");
  require(num_dimensions > 0, "a field has one dimension or more");
  require(type >= TESSERA_F32 && type <= TESSERA_U8, "a field's type is none of tessera_type");
  return {name,
          types[type],
          {shape, shape + num_dimensions},
          {start, start + num_dimensions},
          {count, count + num_dimensions}};
}

}  // namespace tessera::c

using namespace tessera;

tessera_status tessera_fields_create(tessera_fields** fields) {
  return c::guarded([&] {
    c::require(fields != nullptr, "tessera_fields_create: fields is NULL");
    *fields = new tessera_fields;
  });
}

tessera_status tessera_fields_add(tessera_fields* fields, const char* name, tessera_type type,
                                  int num_dimensions, const int64_t* shape, const int64_t* start,
                                  const int64_t* count, const void* data) {
  return c::guarded([&] {
    c::require(fields != nullptr, "tessera_fields_add: fields is NULL");
    fields->fields.push_back({c::field_box(name, type, num_dimensions, shape, start, count), data});
  });
}

void tessera_fields_destroy(tessera_fields* fields) { delete fields; }

tessera_status tessera_fields_read(tessera_grid* grid, const char* path, const char* name,
                                   tessera_type type, int num_dimensions, const int64_t* shape,
                                   const int64_t* start, const int64_t* count, void* data) {
  return c::guarded([&] {
    const comm::Communicator& world = c::shared(grid)->world();
    const auto box = comm::agreed(world, "arguments of tessera_fields_read", [&] {
      c::require(path != nullptr, "tessera_fields_read: path is NULL");
      return c::field_box(name, type, num_dimensions, shape, start, count);
    });
    checkpoint::read_field(world, path, box, data);
  });
}
