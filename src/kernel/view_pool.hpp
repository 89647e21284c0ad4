// SPDX-License-Identifier: Apache-2.0
// Reuse of the views that a step needs, so that a steady step allocates nothing. The pool keeps
// every view that it has handed out; one whose only reference is the pool's own is free again.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <typeindex>
#include <vector>

#include "kernel/view_types.hpp"

namespace tessera::kernel {

/// Not for use by several threads at a time.
class ViewPool {
 public:
  /// Without initialisation; at least one element. A free view with enough rows (the smallest such)
  /// as its first rows, else a new one. Element types and widths do not share memory. Capacities
  /// are rounded up, and grow by half where a free view was too small, so that they settle
  /// when numbers of rows change from step to step.
  template <class T>
  Matrix<T> matrix(const char* label, std::int64_t rows, std::int64_t cols) {
    const Matrix<T> whole = take(
        shelves<T>().matrices[cols], label, rows, cols * std::int64_t{sizeof(T)},
        [&](std::int64_t capacity) { return Matrix<T>(uninitialized(label), capacity, cols); });
    return Kokkos::subview(whole, Kokkos::make_pair(std::int64_t{0}, rows), Kokkos::ALL);
  }
  template <class T>
  Vector<T> vector(const char* label, std::int64_t size) {
    const Vector<T> whole =
        take(shelves<T>().vectors, label, size, std::int64_t{sizeof(T)},
             [&](std::int64_t capacity) { return Vector<T>(uninitialized(label), capacity); });
    return Kokkos::subview(whole, Kokkos::make_pair(std::int64_t{0}, size));
  }

  std::int64_t reserved_bytes() const { return reserved_bytes_; }  ///< held, in use or free

  /// From now on each request also looks at what is in use; for tests and measurements, since it
  /// takes time in proportion to the number of views.
  void watch() { watching_ = true; }
  /// What was in use at the moment of the largest sum, by label, while watching [bytes].
  const std::map<std::string, std::int64_t>& peak_use() const { return peak_use_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }

 private:
  template <class View>
  struct Entry {
    View whole;
    const char* label = "";  ///< of the last request
    std::int64_t used_bytes = 0;
  };
  struct AnyShelves {
    virtual ~AnyShelves() = default;
    virtual void add_use(std::map<std::string, std::int64_t>& use) const = 0;
  };
  template <class T>
  struct Shelves : AnyShelves {
    std::map<std::int64_t, std::vector<Entry<Matrix<T>>>> matrices;  ///< by number of columns
    std::vector<Entry<Vector<T>>> vectors;

    void add_use(std::map<std::string, std::int64_t>& use) const override;
  };

  template <class T>
  Shelves<T>& shelves() {
    auto& any = shelves_[std::type_index(typeid(T))];
    if (!any) any = std::make_unique<Shelves<T>>();
    return static_cast<Shelves<T>&>(*any);
  }
  template <class View, class Make>
  View take(std::vector<Entry<View>>& shelf, const char* label, std::int64_t rows,
            std::int64_t row_bytes, const Make& make);
  static constexpr std::int64_t least_bytes = 4096;
  static std::int64_t capacity_for(std::int64_t rows, std::int64_t row_bytes);
  static void advise_huge_pages(void* data, std::int64_t bytes);
  void look();

  std::map<std::type_index, std::unique_ptr<AnyShelves>> shelves_;
  std::int64_t reserved_bytes_ = 0;
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

template <class T>
void ViewPool::Shelves<T>::add_use(std::map<std::string, std::int64_t>& use) const {
  const auto add = [&](const auto& shelf) {
    for (const auto& entry : shelf) {
      if (entry.whole.use_count() > 1) use[entry.label] += entry.used_bytes;
    }
  };
  add(vectors);
  for (const auto& [cols, shelf] : matrices) add(shelf);
}

template <class View, class Make>
View ViewPool::take(std::vector<Entry<View>>& shelf, const char* label, std::int64_t rows,
                    std::int64_t row_bytes, const Make& make) {
  const auto capacity = [](const Entry<View>& entry) {
    return std::int64_t(entry.whole.extent(0));
  };
  auto best = shelf.end(), too_small = shelf.end();
  // Vectors of all kinds share a shelf: one far too large is left for the request that needs it.
  const std::int64_t most = View::rank == 1 ? std::max(4 * rows, least_bytes / row_bytes)
                                            : std::numeric_limits<std::int64_t>::max();
  for (auto it = shelf.begin(); it != shelf.end(); ++it) {
    if (it->whole.use_count() != 1 || capacity(*it) > most) continue;
    auto& candidate = capacity(*it) < rows ? too_small : best;
    const bool is_closer = candidate == shelf.end() ||
                           (capacity(*it) < rows) != (capacity(*it) < capacity(*candidate));
    if (is_closer) candidate = it;
  }
  if (best == shelf.end()) {
    std::int64_t wanted = rows;
    if (too_small != shelf.end() && rows <= 2 * capacity(*too_small)) {
      wanted += rows / 2;
      reserved_bytes_ -= capacity(*too_small) * row_bytes;
      shelf.erase(too_small);
    }
    wanted = capacity_for(wanted, row_bytes);
    best = shelf.insert(shelf.end(), Entry<View>{make(wanted)});
    reserved_bytes_ += wanted * row_bytes;
    advise_huge_pages(best->whole.data(), wanted * row_bytes);
  }
  best->label = label;
  best->used_bytes = rows * row_bytes;
  const View whole = best->whole;
  if (watching_) look();
  return whole;
}

}  // namespace tessera::kernel
