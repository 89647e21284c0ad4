// SPDX-License-Identifier: Apache-2.0
// Packing for the packed product, with AVX-512: shared by its instruction sets.
#pragma once

#include "kernel/gemm_packed.hpp"

namespace tessera::kernel::packed {

/// Rows of A into tiles. Rows beyond the last stay undefined, up to 16. local.
void pack_rows(const Lines& rows, char* packed);

/// Columns of B into panels. Columns beyond the last are zero up to 16 or 32; those from 16 on stay
/// undefined in a panel that has no more than 16. local.
void pack_columns(const Lines& columns, char* packed);

}  // namespace tessera::kernel::packed
