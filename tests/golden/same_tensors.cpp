// SPDX-License-Identifier: Apache-2.0
// same_tensors DIRECTORY OTHER: whether two Hugging Face directories have the same tensors, byte
// for byte, however they are split into files. For round_trip.sh.
#include <cstdio>

#include "safetensors_copy.hpp"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const tessera::test::SafetensorsCopy first(argv[1]), second(argv[2]);
  int num_different = 0;
  for (const auto& [name, tensor] : first.tensors) {
    const auto other = second.tensors.find(name);
    const char* what = other == second.tensors.end()         ? "is missing"
                       : other->second.dtype != tensor.dtype ? "has another element type"
                       : other->second.shape != tensor.shape ? "has another shape"
                       : other->second.bytes != tensor.bytes ? "differs"
                                                             : nullptr;
    if (what == nullptr) continue;
    std::printf("%s %s\n", name.c_str(), what);
    ++num_different;
  }
  for (const auto& tensor : second.tensors) {
    if (first.tensors.contains(tensor.first)) continue;
    std::printf("%s is new\n", tensor.first.c_str());
    ++num_different;
  }
  return first.tensors.empty() || num_different > 0 ? 1 : 0;
}
