// SPDX-License-Identifier: Apache-2.0
// Opened arrays are remembered rather than all opened at once: a kernel touches few of many. The
// first touch of each while work is under way comes here as a fault and opens it.
#include "base/device_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "base/contract.hpp"
#include "base/device_access.hpp"
#include "base/stack_trace.hpp"

namespace tessera {

struct GuardedArray {
  std::array<char, 64> label{};
  std::uintptr_t data = 0, data_end = 0;
  std::uintptr_t pages = 0, pages_end = 0;
  int num_accesses = 0;          ///< collectives under way
  bool is_open = false;          ///< by work
  GuardedArray* next = nullptr;  ///< also open
};

namespace {

/// Held by the handler of a fault too, hence no mutex: nothing inside touches guarded memory.
class SpinLock {
 public:
  void lock() {
    while (held_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void unlock() { held_.clear(std::memory_order_release); }

 private:
  std::atomic_flag held_;
};

struct Guard {
  SpinLock lock;
  std::map<std::uintptr_t, GuardedArray> arrays;  ///< by first page; nodes never move
  GuardedArray* open = nullptr;
  int depth = 0;  ///< of work under way
  std::array<char, 96> last_work{"none"};
  struct sigaction earlier {};
};

/// Never destroyed: arrays of static objects outlive it otherwise.
Guard& guard() {
  static auto* const made = new Guard;
  return *made;
}

std::uintptr_t page_bytes() {
  static const auto bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

std::uintptr_t address_of(const void* data) { return reinterpret_cast<std::uintptr_t>(data); }

template <std::size_t n>
void copy_text(std::string_view text, std::array<char, n>& into) {
  const std::size_t length = std::min(text.size(), n - 1);
  std::memcpy(into.data(), text.data(), length);
  into[length] = '\0';
}

void print(std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) return;
  }
}

void protect(const GuardedArray& array, int protection) {
  if (mprotect(reinterpret_cast<void*>(array.pages), array.pages_end - array.pages, protection) ==
      0)
    return;
  print({"tessera: the check of device memory cannot change the protection of '",
         array.label.data(), "' (too many mappings; see vm.max_map_count)\n"});
  _exit(EXIT_FAILURE);
}

GuardedArray* find(Guard& g, std::uintptr_t address) {
  auto after = g.arrays.upper_bound(address);
  if (after == g.arrays.begin()) return nullptr;
  GuardedArray& array = std::prev(after)->second;
  return address < array.pages_end ? &array : nullptr;
}

[[noreturn]] void report(const Guard& g, const GuardedArray& array, std::uintptr_t address) {
  std::array<char, 32> offset{};
  std::snprintf(offset.data(), offset.size(), "%lld",
                static_cast<long long>(address) - static_cast<long long>(array.data));
  print({"tessera: error: the host touched device memory: array '", array.label.data(),
         "' at byte ", offset.data(), ", last on the device: ", g.last_work.data(),
         "\nCopy it by kernel::host_copy or kernel::host_mirror first (CONTRIBUTING.md, \"Device "
         "memory\"). Called from:\n"});
  print_stack_trace(STDERR_FILENO);
  _exit(EXIT_FAILURE);
}

void open(Guard& g, GuardedArray& array) {
  if (array.is_open) return;
  protect(array, PROT_READ | PROT_WRITE);
  array.is_open = true;
  array.next = std::exchange(g.open, &array);
}

/// An array of ours is opened for work under way; otherwise that is the error looked for. Other
/// faults go to whoever had them before.
void on_fault(int signal, siginfo_t* info, void*) {
  Guard& g = guard();
  const std::scoped_lock locked(g.lock);
  const auto address = address_of(info->si_addr);
  GuardedArray* const array = find(g, address);
  if (array == nullptr) {
    sigaction(signal, &g.earlier, nullptr);
    return;
  }
  if (array->num_accesses > 0) return;  // another thread was quicker
  if (g.depth == 0) report(g, *array, address);
  open(g, *array);
}

/// Test frameworks and MPI set handlers, too, at any time: whenever work begins, ours comes first.
void install_handler(Guard& g) {
  struct sigaction current {};
  sigaction(SIGSEGV, nullptr, &current);
  if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == on_fault) return;
  warm_up_stack_trace();
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &g.earlier);
}

void close_all(Guard& g) {
  while (g.open != nullptr) {
    GuardedArray& array = *std::exchange(g.open, g.open->next);
    array.is_open = false;
    if (array.num_accesses == 0) protect(array, PROT_NONE);
  }
}

/// The array of a buffer that a collective works on, while others are inaccessible.
class CollectiveListener : public DeviceAccessListener {
 public:
  void begin_access(const char* operation, const void* data, std::int64_t bytes) override {
    Guard& g = guard();
    const std::scoped_lock locked(g.lock);
    GuardedArray* const array = bytes > 0 ? find(g, address_of(data)) : nullptr;
    if (array == nullptr) return;
    copy_text(operation, g.last_work);
    if (array->num_accesses++ == 0) protect(*array, PROT_READ | PROT_WRITE);
  }
  void end_access(const char*, const void* data, std::int64_t bytes) override {
    Guard& g = guard();
    const std::scoped_lock locked(g.lock);
    GuardedArray* const array = bytes > 0 ? find(g, address_of(data)) : nullptr;
    if (array == nullptr || array->num_accesses == 0) return;
    if (--array->num_accesses == 0 && !array->is_open) protect(*array, PROT_NONE);
  }
};

}  // namespace

bool device_memory_is_checked() {
  static const bool checked = [] {
    const char* text = std::getenv("TESSERA_DEVICE_MEMORY_CHECK");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return checked;
}

std::int64_t guard_margin_bytes() { return static_cast<std::int64_t>(page_bytes()); }

void guard_device_array(std::string_view label, const void* data, std::int64_t bytes) {
  static CollectiveListener listener;
  static const bool listens = (add_device_access_listener(listener), true);
  (void)listens;
  Guard& g = guard();
  GuardedArray array;
  copy_text(label, array.label);
  array.data = address_of(data);
  array.data_end = array.data + static_cast<std::uintptr_t>(bytes);
  array.pages = array.data / page_bytes() * page_bytes();
  array.pages_end = (array.data_end + page_bytes() - 1) / page_bytes() * page_bytes();
  const std::scoped_lock locked(g.lock);
  install_handler(g);
  TESSERA_EXPECT(find(g, array.pages) == nullptr && find(g, array.pages_end - 1) == nullptr);
  protect(g.arrays.emplace(array.pages, array).first->second, PROT_NONE);
}

void unguard_device_arrays(const void* block, std::int64_t bytes) {
  Guard& g = guard();
  const auto begin = address_of(block);
  const std::scoped_lock locked(g.lock);
  close_all(g);
  auto it = g.arrays.lower_bound(begin);
  while (it != g.arrays.end() && it->first < begin + static_cast<std::uintptr_t>(bytes)) {
    TESSERA_EXPECT(it->second.num_accesses == 0);
    protect(it->second, PROT_READ | PROT_WRITE);
    it = g.arrays.erase(it);
  }
}

void begin_device_work(std::string_view what) {
  Guard& g = guard();
  const std::scoped_lock locked(g.lock);
  if (g.depth++ > 0) return;
  install_handler(g);
  copy_text(what, g.last_work);
}

void open_device_array(const void* data) {
  Guard& g = guard();
  const std::scoped_lock locked(g.lock);
  TESSERA_EXPECT(g.depth > 0);
  if (GuardedArray* const array = find(g, address_of(data))) open(g, *array);
}

void end_device_work() {
  Guard& g = guard();
  const std::scoped_lock locked(g.lock);
  TESSERA_EXPECT(g.depth > 0);
  if (--g.depth == 0) close_all(g);
}

}  // namespace tessera
