// SPDX-License-Identifier: Apache-2.0
// config.json of every family and spelling. Input: its text.
#include "fuzz.hpp"
#include "tessera/model/config.hpp"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(fuzz::text_of(data, size));
  fuzz::expect_read_or_refused([&] {
    const model::ModelConfig config = model::parse_config(text, "config.json");
    model::describe(config);
    const model::ModelConfig again =
        model::parse_config(model::hugging_face_config(text, false), "config.json");
    if (model::describe(again) != model::describe(config)) fuzz::stop("exported as another model");
  });
  return 0;
}
