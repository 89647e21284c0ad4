// SPDX-License-Identifier: Apache-2.0
// The configuration file of the program, in which options of several types may stand. Input: its
// text.
#include <vector>

#include "config_file.hpp"
#include "fuzz.hpp"

using namespace tessera;

namespace {

void parse(const std::string& path) {
  CLI::App program("fuzz", "tessera");
  program.require_subcommand(1);
  apps::add_config_file(program);
  CLI::App* train = program.add_subcommand("train");
  std::string text;
  std::int64_t number = 0;
  double rate = 0.0;
  bool is_wanted = false;
  std::vector<double> rates;
  train->add_option("model", text);
  train->add_option("--steps", number)->check(CLI::NonNegativeNumber);
  train->add_option("--lr", rate);
  train->add_option("--betas", rates)->delimiter(',')->expected(2);
  train->add_flag("--resume", is_wanted);
  try {
    program.parse("--config " + path + " train");
  } catch (const CLI::ParseError&) {  // what the program prints as wrong usage
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::InputFile file(fuzz::text_of(data, size));
  parse(file.path().string());
  return 0;
}
