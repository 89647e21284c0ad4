// SPDX-License-Identifier: Apache-2.0
// The first bytes of a safetensors file that is to be written.
#pragma once

#include <span>
#include <string>

#include "tessera/checkpoint/safetensors.hpp"

namespace tessera::checkpoint {

/// "BF16" of Dtype::bf16. Throws Error::internal for an element type that no export writes.
const char* safetensors_name(Dtype dtype);

/// Length and JSON of the header, padded with spaces so that the data begins at a multiple of 8
/// bytes, with the metadata that transformers asks for. local, pure.
std::string safetensors_header(std::span<const SafetensorsTensor> tensors);

}  // namespace tessera::checkpoint
