// SPDX-License-Identifier: Apache-2.0
// What every product asks of its operands, on the host and on a device.
#pragma once

#include "base/contract.hpp"
#include "kernel/gemm.hpp"

namespace tessera::kernel {

template <class T, class TC>
void expect_conformable(const Operand<const T>& a, const Operand<const T>& b,
                        const Operand<TC>& c) {
  TESSERA_EXPECT(!c.transposed);
  TESSERA_EXPECT(a.op_rows() == c.rows && b.op_cols() == c.cols && a.op_cols() == b.op_rows());
  TESSERA_EXPECT(a.rows <= 1 || a.stride >= a.cols);
  TESSERA_EXPECT(b.rows <= 1 || b.stride >= b.cols);
  TESSERA_EXPECT(c.rows <= 1 || c.stride >= c.cols);
}

}  // namespace tessera::kernel
