// SPDX-License-Identifier: Apache-2.0
// A linear layer of a unit by its name: y = x W^T (+ b), and its gradients.
#pragma once

#include <string>

#include "kernel/view.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// x [N, in] T -> [N, out] f32, without bias; `<name>.weight` is [out, in]. local.
template <class T>
kernel::Matrix<float> project(const kernel::Execution& execution, kernel::Matrix<const T> x,
                              const UnitView<const T>& weights, const std::string& name,
                              std::int64_t out);

/// The same with `<name>.bias` [out] added where the unit has it. local.
template <class T>
kernel::Matrix<float> project_biased(const kernel::Execution& execution, kernel::Matrix<const T> x,
                                     const UnitView<const T>& weights, const std::string& name,
                                     std::int64_t out);

/// dy [N, out] T, x [N, in] T: adds to the gradients of `<name>.weight` and `<name>.bias` and to dx
/// [N, in] f32. local.
template <class T>
void project_backward(const kernel::Execution& execution, kernel::Matrix<const T> dy,
                      kernel::Matrix<const T> x, const UnitView<const T>& weights,
                      const UnitView<float>& gradients, const std::string& name,
                      kernel::Matrix<float> dx);

}  // namespace tessera::model
