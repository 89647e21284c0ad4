// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file. Input: 8 bytes, how many bytes of data follow the header; then
// the file up to its data: 8 bytes length, the header's JSON.
#include <cstring>

#include "fuzz.hpp"
#include "tessera/checkpoint/safetensors.hpp"

using namespace tessera;

namespace {

constexpr std::uint64_t most_data_bytes = std::uint64_t(1) << 40;

// The header says so, but it must be so too.
void require_within_file(const checkpoint::SafetensorsHeader& header, std::int64_t data_bytes) {
  for (const checkpoint::SafetensorsTensor& tensor : header.tensors) {
    if (tensor.begin_bytes < 0 || tensor.begin_bytes > tensor.end_bytes ||
        tensor.end_bytes > data_bytes)
      fuzz::stop("a tensor was accepted that lies outside the file");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t data_bytes = 0;
  if (size < sizeof data_bytes) return 0;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  const std::string_view head = fuzz::text_of(data, size).substr(sizeof data_bytes);
  const std::uint64_t hole_bytes = data_bytes % most_data_bytes;
  const fuzz::InputFile file(head, hole_bytes);
  const auto file_bytes = static_cast<std::int64_t>(head.size() + hole_bytes);
  fuzz::expect_read_or_refused([&] {
    const auto header = checkpoint::read_safetensors_header(file.path(), 0);
    require_within_file(header, file_bytes - header.data_offset_bytes);
  });
  return 0;
}
