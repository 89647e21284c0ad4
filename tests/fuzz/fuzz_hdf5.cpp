// SPDX-License-Identifier: Apache-2.0
// The layout of a Tessera file: groups, datasets, attributes, embedded files. Input: its bytes.
#include "base/hdf5_handle.hpp"
#include "fuzz.hpp"
#include "hdf5_describe.hpp"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const QuietHdf5 quiet;
  const fuzz::InputFile file(fuzz::text_of(data, size));
  fuzz::expect_read_or_refused([&] { checkpoint::describe_file(file.path(), 0); });
  return 0;
}
