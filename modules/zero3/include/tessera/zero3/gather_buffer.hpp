// SPDX-License-Identifier: Apache-2.0
// Small parameters that are not trained, whole and in f32 on every rank.
#pragma once

#include <string_view>

#include "kernel/view.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

/// The f32 values of the unit's one parameter whose name ends in `suffix`, [parameter size]. For
/// buffers such as router biases: a gather of the unit would round them to the working type.
/// collective over unit.group(). @pre the unit is dense.
kernel::Vector<const float> gather_buffer(const Unit& unit, std::string_view suffix);

}  // namespace tessera::zero3
