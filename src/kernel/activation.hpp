// SPDX-License-Identifier: Apache-2.0
// Which gated activation an MLP has. Apart from the kernels, so that configurations need no Kokkos.
#pragma once

namespace tessera::kernel {

enum class Activation {
  /// silu(gate) * up (arXiv:2002.05202); of 2I columns the gate is the first half.
  swiglu,
  /// gpt-oss: g' = min(g, limit), u' = clamp(u, -limit, limit), a = (u' + 1) g' sigmoid(alpha g');
  /// gate and up are the even and odd columns.
  clamped_swiglu,
};

}  // namespace tessera::kernel
