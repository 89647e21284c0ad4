// SPDX-License-Identifier: Apache-2.0
// A 128-bit fingerprint of each tensor and of each expert in it, the same on every grid, in every
// file format and in every element type that holds the values: XXH3-128 of blocks of the values as
// f32 in Tessera's order, each keyed by its place, summed modulo 2^128. Because it is a sum, each
// rank hashes what it holds and one all-reduce gives the whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "comm/communicator.hpp"

namespace tessera::checkpoint {

struct Fingerprint {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  Fingerprint& operator+=(const Fingerprint& other);  ///< modulo 2^128
  bool operator==(const Fingerprint&) const = default;
};
using tessera::to_string;  // of shapes, which the next line would hide in this namespace
/// 32 hexadecimal digits.
std::string to_string(const Fingerprint& fingerprint);

/// Elements of one hashed block: the greatest common divisor of 32 and the last dimension, so that
/// neither an expert's end nor a ZeRO-3 shard's (multiples of 64) falls inside one. local.
std::int64_t fingerprint_block(const Shape& shape);

/// A rank's share of elements [begin, end) of a parameter, all about equal and cut between blocks;
/// shard_offset is 0. local. @pre begin and end lie between blocks.
Slice even_share(const Parameter& parameter, std::int64_t begin, std::int64_t end, int num_ranks,
                 int rank);

/// What is known of one tensor: one entry per expert, or a single one for a dense tensor.
struct TensorFingerprint {
  std::vector<Fingerprint> experts;
  std::vector<std::int64_t> num_elements;  ///< that were hashed into each entry
};

/// What a table sums: fingerprints, or in their place, with low = the sum modulo 2^64 of the
/// values' bits, each times a number made of its place, and high = 0. That finds whatever a load
/// loses, doubles, misplaces or changes at a fraction of the cost; it is compared with its like
/// alone.
enum class SumKind { fingerprints, values };

/// Fingerprints of some tensors, being summed.
class FingerprintTable {
 public:
  explicit FingerprintTable(SumKind kind = SumKind::fingerprints) : kind_(kind) {}

  /// Hashes values: elements [begin, begin + values.size()) of the global tensor in Tessera's order
  /// and orientation. Within an expert (a dense tensor: as a whole) both ends are multiples of the
  /// block or the end of the expert. local.
  void add(const Parameter& parameter, std::int64_t begin, std::span<const float> values);
  /// The same for a tensor of bytes (scales [E, out, in / 32], files [n]) under `name`; each byte
  /// is a block.
  void add_bytes(const std::string& name, const Shape& shape, bool is_expert, std::int64_t begin,
                 std::span<const std::uint8_t> bytes);

  /// Zeroed entry for a tensor of which this rank may hold nothing, so that all ranks sum the same
  /// tensors. add() makes the entry itself. local.
  void expect(const std::string& name, std::int64_t num_experts);
  /// Sums over the ranks, in one all-reduce. Every rank has the same tensors. collective over
  /// world.
  void sum(const comm::Communicator& world);
  /// The same for several tables together. collective over world.
  static void sum(const comm::Communicator& world, std::span<FingerprintTable* const> tables);

  const TensorFingerprint* find(const std::string& name) const;
  const std::map<std::string, TensorFingerprint>& tensors() const { return tensors_; }

 private:
  friend class TensorHash;
  /// With room for `num_experts`, zero where it is new.
  TensorFingerprint& entry(const std::string& name, std::int64_t num_experts);

  SumKind kind_;
  std::map<std::string, TensorFingerprint> tensors_;
};

/// Hashes one tensor piece by piece, as FingerprintTable::add() does, into one table or two; its
/// entries are looked up once. All members are local.
class TensorHash {
 public:
  /// A table may be null; both are of one kind. The tables and the parameter must outlive it.
  TensorHash(const Parameter& parameter, FingerprintTable* table,
             FingerprintTable* second = nullptr);
  /// Nothing happens without a table.
  void add(std::int64_t begin, std::span<const float> values);

 private:
  std::array<TensorFingerprint*, 2> entries_{};
  SumKind kind_ = SumKind::fingerprints;
  std::int64_t block_ = 1, size_ = 0, expert_size_ = 0;
};

/// One number for a whole model: XXH3-128 (seed 0) of the lines "<name> <expert> <32 hexadecimal
/// digits>\n", sorted by name, then by expert. The same for the same values under the same names in
/// any format. local.
Fingerprint fingerprint_of(const FingerprintTable& table);

}  // namespace tessera::checkpoint
