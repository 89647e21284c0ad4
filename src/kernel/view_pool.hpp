// SPDX-License-Identifier: Apache-2.0
// Views that live in an arena, so that a steady step allocates nothing. The pool keeps a reference
// to each view that it has handed out; one whose only reference is the pool's own is over, and its
// bytes are free for whatever comes next, of any type and shape.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernel/arena.hpp"

namespace tessera::kernel {

/// A view of other memory that counts as a reference to `owner`. Kokkos offers no public way to
/// this: until Kokkos 4 a view is made of a tracker and a mapping, from Kokkos 5 on of a handle
/// that holds both.
template <class View, class Owner>
View view_owned_by(const Owner& owner, typename View::pointer_type data,
                   const Kokkos::LayoutRight& extents) {
  if constexpr (requires { View(owner.impl_track(), View().impl_map()); }) {
    return View(owner.impl_track(), View(data, extents).impl_map());
  } else {
    return View(typename View::data_handle_type(owner.impl_track(), data), extents);
  }
}

/// Not for use by several threads at a time. Must outlive its views.
class ViewPool {
 public:
  ViewPool() : ViewPool(std::make_shared<Arena>()) {}
  /// Takes from an arena that others use, too.
  explicit ViewPool(std::shared_ptr<Arena> arena) : arena_(std::move(arena)) {}
  ViewPool(const ViewPool&) = delete;
  ViewPool& operator=(const ViewPool&) = delete;
  ~ViewPool();

  /// Without initialisation; at least one element.
  template <class T>
  Matrix<T> matrix(const char* label, std::int64_t rows, std::int64_t cols) {
    return view<Matrix<T>>(label, Kokkos::LayoutRight(rows, cols), rows * cols);
  }
  template <class T>
  Vector<T> vector(const char* label, std::int64_t size) {
    return view<Vector<T>>(label, Kokkos::LayoutRight(size), size);
  }

  const Arena& arena() const { return *arena_; }

  /// From now on each request also notes what is in use; for tests and measurements, since it
  /// takes time in proportion to the number of views.
  void watch() { watching_ = true; }
  /// What was in use at the moment of the largest sum, by label, while watching [bytes].
  const std::map<std::string, std::int64_t>& peak_use() const { return peak_use_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }

 private:
  using Token = Vector<std::uint8_t>;  ///< its references are counted, no more
  struct Live {
    Token token;
    Arena::Block block;
    const char* label = "";
  };

  template <class View>
  View view(const char* label, const Kokkos::LayoutRight& extents, std::int64_t size) {
    const Live& live = take(label, size * std::int64_t{sizeof(typename View::value_type)});
    return view_owned_by<View>(
        live.token, reinterpret_cast<typename View::pointer_type>(live.block.data), extents);
  }
  const Live& take(const char* label, std::int64_t bytes);
  void collect();
  void look();

  std::shared_ptr<Arena> arena_;
  std::vector<Live> live_;
  std::vector<Token> tokens_;  ///< of views that are over
  bool watching_ = false;
  std::map<std::string, std::int64_t> peak_use_;
  std::int64_t peak_bytes_ = 0;
};

/// Of this thread, or null. local.
ViewPool* current_pool();

/// While it lives, new_matrix() and new_vector() of this thread take from `pool`.
class PoolScope {
 public:
  explicit PoolScope(ViewPool& pool);
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;

 private:
  ViewPool* outer_;
};

}  // namespace tessera::kernel
