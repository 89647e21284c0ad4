// SPDX-License-Identifier: Apache-2.0
// A double of cuBLAS: its own C interface over host memory and plain loops, strict about what
// cuBLAS asks of its arguments. Tests of the mapping onto cuBLAS are linked with it in cuBLAS's
// place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::test {

struct CublasRecord {
  std::string call;           ///< "strided" or "grouped"
  std::int64_t products = 0;  ///< in this call
};

/// The products called since the last clear_cublas_records(), by all threads. local.
std::vector<CublasRecord> cublas_records();
void clear_cublas_records();

/// Handles created and not yet destroyed. local.
int num_cublas_handles();

/// Whether some handle multiplied f32 or reduced bf16 with less than f32 arithmetic. local.
bool cublas_lost_precision();

/// The next product fails with CUBLAS_STATUS_ALLOC_FAILED. local.
void fail_next_cublas_call();

}  // namespace tessera::test
