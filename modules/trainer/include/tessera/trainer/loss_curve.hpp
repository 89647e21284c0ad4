// SPDX-License-Identifier: Apache-2.0
// The loss curve as a picture, drawn by gnuplot.
#pragma once

#include <filesystem>

namespace tessera::trainer {

/// Draws the losses (and evaluation losses) of a metrics.jsonl into a PNG. For rank 0. local.
/// Returns whether there is a picture; a missing gnuplot or a failure in it is a warning, because
/// the training itself went well. Leaves no other file.
bool draw_loss_curve(const std::filesystem::path& metrics_path,
                     const std::filesystem::path& png_path);

}  // namespace tessera::trainer
