// SPDX-License-Identifier: Apache-2.0
// What the arithmetic units reach on registers alone: the best instructions that this processor
// has, chosen at run time, whatever the program was compiled for.
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <tessera/study/measure.hpp>

namespace tessera::study {
namespace {

// Each function does `num_rounds` rounds in chains that do not wait for one another, and returns
// something that depends on all of them. `start` must be unknown to the compiler.
using Rounds = float (*)(std::int64_t num_rounds, float start);

struct Instructions {
  const char* name;
  Rounds rounds;
  double flops_per_round;
};

constexpr int num_chains = 12;

/// For any processor: what the compiler makes of it.
float multiply_add(std::int64_t num_rounds, float start) {
  typedef float Lanes __attribute__((vector_size(16)));
  Lanes sum[num_chains];
  for (int i = 0; i < num_chains; ++i) sum[i] = Lanes{} + (start + static_cast<float>(i));
  const Lanes factor = Lanes{} + 0.999f, term = Lanes{} + 0.001f;
  for (std::int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < num_chains; ++i) sum[i] = sum[i] * factor + term;
  }
  for (int i = 1; i < num_chains; ++i) sum[0] += sum[i];
  return sum[0][0];
}

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) float multiply_add_avx2(std::int64_t num_rounds, float start) {
  __m256 sum[num_chains];
  for (int i = 0; i < num_chains; ++i) sum[i] = _mm256_set1_ps(start + static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  for (std::int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < num_chains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], factor, term);
  }
  for (int i = 1; i < num_chains; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}

__attribute__((target("avx512f"))) float multiply_add_avx512(std::int64_t num_rounds, float start) {
  __m512 sum[num_chains];
  for (int i = 0; i < num_chains; ++i) sum[i] = _mm512_set1_ps(start + static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  for (std::int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < num_chains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], factor, term);
  }
  for (int i = 1; i < num_chains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float bf16_pairs_avx512(std::int64_t num_rounds,
                                                                      float start) {
  __m512 sum[num_chains];
  for (int i = 0; i < num_chains; ++i) sum[i] = _mm512_set1_ps(start + static_cast<float>(i));
  const __m512 factors = _mm512_set1_ps(0.001f * start);
  const __m512bh a = _mm512_cvtne2ps_pbh(factors, factors);
  for (std::int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < num_chains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, a);
  }
  for (int i = 1; i < num_chains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}

/// Palette 1 of the tile configuration: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::array<std::uint8_t, 14> reserved{};
  std::array<std::uint16_t, 16> row_bytes{64, 64, 64, 64, 64, 64, 64, 64};
  std::array<std::uint8_t, 16> rows{16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile,amx-bf16"))) float bf16_tiles_amx(std::int64_t num_rounds,
                                                                  float start) {
  const TileConfiguration configuration;
  _tile_loadconfig(&configuration);
  alignas(64) std::array<std::uint16_t, 512> pairs;
  alignas(64) std::array<float, 256> sums;
  pairs.fill(static_cast<std::uint16_t>(start > 0.0f ? 0x3a80 : 0));  // 2^-10
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, pairs.data(), 64);
  _tile_loadd(5, pairs.data(), 64);
  _tile_loadd(6, pairs.data(), 64);
  _tile_loadd(7, pairs.data(), 64);
  for (std::int64_t round = 0; round < num_rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  // The products are asm volatile, so that one sum is enough.
  _tile_stored(0, sums.data(), 64);
  _tile_release();
  const float result = sums[0];
  return result;
}

/// Linux gives a process the tiles' registers only when it asks for them.
bool may_use_tiles() {
  constexpr unsigned int tile_bits = (1u << 22) | (1u << 24);  // AMX-BF16 and AMX-TILE in edx
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & tile_bits) != tile_bits) return false;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

Instructions best_f32() {
  if (__builtin_cpu_supports("avx512f")) return {"AVX-512", multiply_add_avx512, 32.0 * num_chains};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"AVX2", multiply_add_avx2, 16.0 * num_chains};
  }
  return {"128 bits", multiply_add, 8.0 * num_chains};
}

Instructions best_bf16() {
  if (may_use_tiles()) return {"AMX", bf16_tiles_amx, 4.0 * 2.0 * 16 * 16 * 32};
  if (__builtin_cpu_supports("avx512bf16")) {
    return {"AVX512_BF16", bf16_pairs_avx512, 64.0 * num_chains};
  }
  return {"as f32", nullptr, 0.0};
}

#else

Instructions best_f32() { return {"128 bits", multiply_add, 8.0 * num_chains}; }
Instructions best_bf16() { return {"as f32", nullptr, 0.0}; }

#endif

double rate(const comm::Communicator& world, const Instructions& instructions, int num_repeats) {
  constexpr double flops = 1e8;  // some milliseconds
  const auto num_rounds = static_cast<std::int64_t>(flops / instructions.flops_per_round);
  volatile float start = 0.5f, sink = 0.0f;
  const double seconds =
      best_seconds(world, num_repeats, [&] { sink = instructions.rounds(num_rounds, start); });
  return instructions.flops_per_round * static_cast<double>(num_rounds) / seconds;
}

}  // namespace

RegisterRates measure_registers(const comm::Communicator& world, int num_repeats) {
  const Instructions f32 = best_f32(), bf16 = best_bf16();
  RegisterRates result{f32.name, rate(world, f32, num_repeats), bf16.name, 0.0};
  // The same number of collectives on processors of different kinds.
  const double bf16_rate = rate(world, bf16.rounds != nullptr ? bf16 : f32, num_repeats);
  result.bf16 = bf16.rounds != nullptr ? bf16_rate : result.f32;
  // Intel's instruction for pairs of bf16 is slower than widening them and multiplying as f32.
  if (result.bf16 < result.f32) {
    result.bf16 = result.f32;
    result.bf16_instructions = result.f32_instructions + ", as f32";
  }
  return result;
}

}  // namespace tessera::study
