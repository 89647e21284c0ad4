// SPDX-License-Identifier: Apache-2.0
// Hashing of blocks, each keyed by its place, and the one sum over the ranks.
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_SCALAR  // blocks are too short for the vector code, of which g++ 12 warns
#include "tessera/checkpoint/fingerprint.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/block_distribution.hpp"
#include "base/contract.hpp"
#include "value_sum.hpp"

namespace tessera::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes are of little-endian elements");

constexpr std::int64_t largest_block = 32;

template <std::int64_t block, class T>
Fingerprint sum_of_blocks(std::int64_t first, std::span<const T> values) {
  Fingerprint sum;
  for (std::size_t i = 0; i < values.size(); i += block) {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(values.data() + i, block * sizeof(T),
                                                     static_cast<std::uint64_t>(first) + i);
    sum += {hash.low64, hash.high64};
  }
  return sum;
}

// `block` divides 32. As constants, so that the compiler keeps of the hash what that length needs.
template <class T>
Fingerprint sum_of(std::int64_t block, std::int64_t first, std::span<const T> values) {
  switch (block) {
    case 32: return sum_of_blocks<32>(first, values);
    case 16: return sum_of_blocks<16>(first, values);
    case 8: return sum_of_blocks<8>(first, values);
    case 4: return sum_of_blocks<4>(first, values);
    case 2: return sum_of_blocks<2>(first, values);
    default: return sum_of_blocks<1>(first, values);
  }
}

std::int64_t num_entries(const Shape& shape, bool is_expert) { return is_expert ? shape[0] : 1; }

// Cuts `values` at the experts' ends; the sums go to each of the entries that is not null.
template <class T>
void add_values(std::span<TensorFingerprint* const> entries, SumKind kind, std::int64_t expert_size,
                std::int64_t begin, std::int64_t block, std::span<const T> values) {
  const std::int64_t end = begin + std::ssize(values);
  TESSERA_EXPECT(begin % block == 0 && end % block == 0);
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t expert = at / expert_size, first = at % expert_size;
    const std::int64_t size = std::min(expert_size - first, end - at);
    const auto part = values.subspan(std::size_t(at - begin), std::size_t(size));
    const Fingerprint sum = kind == SumKind::values ? Fingerprint{value_sum(first, part), 0}
                                                    : sum_of(block, first, part);
    for (TensorFingerprint* entry : entries) {
      if (entry == nullptr) continue;
      entry->experts[std::size_t(expert)] += sum;
      if (kind == SumKind::values) entry->experts[std::size_t(expert)].high = 0;
      entry->num_elements[std::size_t(expert)] += size;
    }
    at += size;
  }
}

// Halves of 32 bits in words of 64: their sums over up to 2^32 ranks do not overflow.
void append_words(const TensorFingerprint& entry, std::vector<std::uint64_t>& words) {
  constexpr std::uint64_t half = 0xffffffffu;
  for (std::size_t i = 0; i < entry.experts.size(); ++i) {
    const auto [low, high] = entry.experts[i];
    words.insert(words.end(), {low & half, low >> 32, high & half, high >> 32,
                               static_cast<std::uint64_t>(entry.num_elements[i])});
  }
}

// The sums of what append_words() gave; returns where the next entry's begin.
const std::uint64_t* take_words(const std::uint64_t* word, TensorFingerprint& entry) {
  for (std::size_t i = 0; i < entry.experts.size(); ++i, word += 5) {
    Fingerprint total{word[0], 0};
    total += {word[1] << 32, word[1] >> 32};
    total += {0, word[2] + (word[3] << 32)};
    entry.experts[i] = total;
    entry.num_elements[i] = static_cast<std::int64_t>(word[4]);
  }
  return word;
}

}  // namespace

Fingerprint& Fingerprint::operator+=(const Fingerprint& other) {
  low += other.low;
  high += other.high + (low < other.low ? 1 : 0);
  return *this;
}

std::string to_string(const Fingerprint& fingerprint) {
  return fmt::format("{:016x}{:016x}", fingerprint.high, fingerprint.low);
}

std::int64_t fingerprint_block(const Shape& shape) {
  return shape.empty() ? 1 : std::gcd(largest_block, shape.back());
}

Slice even_share(const Parameter& parameter, std::int64_t begin, std::int64_t end, int num_ranks,
                 int rank) {
  const std::int64_t block = fingerprint_block(parameter.shape);
  TESSERA_EXPECT(begin % block == 0 && end % block == 0 && begin <= end);
  const BlockDistribution blocks{(end - begin) / block, num_ranks};
  return {&parameter, begin + blocks.begin(rank) * block, begin + blocks.end(rank) * block, 0};
}

void FingerprintTable::add(const Parameter& parameter, std::int64_t begin,
                           std::span<const float> values) {
  TensorHash(parameter, this).add(begin, values);
}

TensorFingerprint& FingerprintTable::entry(const std::string& name, std::int64_t num_experts) {
  TensorFingerprint& entry = tensors_[name];
  if (entry.experts.empty()) {
    entry.experts.resize(static_cast<std::size_t>(num_experts));
    entry.num_elements.resize(static_cast<std::size_t>(num_experts));
  }
  TESSERA_EXPECT(std::ssize(entry.experts) == num_experts);
  return entry;
}

void FingerprintTable::add_bytes(const std::string& name, const Shape& shape, bool is_expert,
                                 std::int64_t begin, std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return expect(name, num_entries(shape, is_expert));
  TESSERA_EXPECT(0 <= begin && begin + std::ssize(bytes) <= num_elements(shape));
  TensorFingerprint* const found = &entry(name, num_entries(shape, is_expert));
  add_values(std::span(&found, 1), kind_, num_elements(shape) / std::ssize(found->experts), begin,
             1, bytes);
}

void FingerprintTable::expect(const std::string& name, std::int64_t num_experts) {
  entry(name, num_experts);
}

void FingerprintTable::sum(const comm::Communicator& world) {
  FingerprintTable* const self = this;
  sum(world, std::span(&self, 1));
}

void FingerprintTable::sum(const comm::Communicator& world,
                           std::span<FingerprintTable* const> tables) {
  std::vector<std::uint64_t> words;
  for (const FingerprintTable* table : tables) {
    for (const auto& [name, entry] : table->tensors_) append_words(entry, words);
  }
  if (words.empty()) return;
  world.all_reduce("fingerprints", std::span<std::uint64_t>(words), comm::ReduceOp::sum);
  const std::uint64_t* word = words.data();
  for (FingerprintTable* table : tables) {
    for (auto& [name, entry] : table->tensors_) {
      word = take_words(word, entry);
      if (table->kind_ == SumKind::values)
        for (Fingerprint& sum : entry.experts) sum.high = 0;
    }
  }
}

TensorHash::TensorHash(const Parameter& parameter, FingerprintTable* table,
                       FingerprintTable* second)
    : block_(fingerprint_block(parameter.shape)), size_(parameter.size()) {
  const std::int64_t num_experts = num_entries(parameter.shape, parameter.is_expert);
  TESSERA_EXPECT(table == nullptr || second == nullptr || table->kind_ == second->kind_);
  if (table != nullptr || second != nullptr) kind_ = (table != nullptr ? table : second)->kind_;
  if (table != nullptr) entries_[0] = &table->entry(parameter.name, num_experts);
  if (second != nullptr) entries_[1] = &second->entry(parameter.name, num_experts);
  expert_size_ = num_experts > 0 ? size_ / num_experts : 0;
}

void TensorHash::add(std::int64_t begin, std::span<const float> values) {
  if (values.empty() || (entries_[0] == nullptr && entries_[1] == nullptr)) return;
  TESSERA_EXPECT(0 <= begin && begin + std::ssize(values) <= size_);
  add_values(std::span<TensorFingerprint* const>(entries_), kind_, expert_size_, begin, block_,
             values);
}

Fingerprint fingerprint_of(const FingerprintTable& table) {
  std::string text;
  for (const auto& [name, entry] : table.tensors()) {
    for (std::size_t e = 0; e < entry.experts.size(); ++e) {
      text += fmt::format("{} {} {}\n", name, e, to_string(entry.experts[e]));
    }
  }
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.low64, hash.high64};
}

const TensorFingerprint* FingerprintTable::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace tessera::checkpoint
