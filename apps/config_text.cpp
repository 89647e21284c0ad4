// SPDX-License-Identifier: Apache-2.0
#include "config_text.hpp"

#include <filesystem>
#include <fstream>

#include "comm/agree.hpp"
#include "tessera/checkpoint/source.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::apps {

std::string read_config_text(const comm::Communicator& world, const std::string& model) {
  if (!model.ends_with(".json")) {
    const auto source = checkpoint::Source::open(world, trainer::model_path(world, model));
    return source->config_json();
  }
  return comm::agreed(world, "read the configuration", [&] {
    std::ifstream file(model);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file) fail(ErrorKind::file, "{} cannot be read", model);
    return text;
  });
}

}  // namespace tessera::apps
