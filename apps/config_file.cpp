// SPDX-License-Identifier: Apache-2.0
#include "config_file.hpp"

#include <fmt/ranges.h>

#include <memory>

#include "base/toml.hpp"

namespace tessera::apps {
namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw CLI::ConfigError("configuration file: " + message,
                         static_cast<int>(CLI::ExitCodes::ConfigError));
}

/// Lets toml++ read the file where CLI11 has a reader of its own that knows only part of TOML.
class TomlReader : public CLI::Config {
 public:
  explicit TomlReader(const CLI::App& program) : program_(program) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }

  std::vector<CLI::ConfigItem> from_config(std::istream& stream) const override {
    std::vector<CLI::ConfigItem> items;
    append(read(stream), program_, {}, items);
    return items;
  }

 private:
  static toml::table read(std::istream& stream) {
    try {
      return toml::parse(stream);
    } catch (const toml::parse_error& error) {
      refuse(fmt::format("line {}: {}", error.source().begin.line, error.description()));
    }
  }

  static void append(const toml::table& table, const CLI::App& app,
                     const std::vector<std::string>& parents, std::vector<CLI::ConfigItem>& items) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      if (const toml::table* inner = node.as_table()) {
        append(*inner, find_command(app, name), append_name(parents, name), items);
      } else {
        if (!is_option(app, name))
          refuse_key(app, fmt::format("{}", fmt::join(append_name(parents, name), ".")));
        items.push_back({parents, name, texts(node, name)});
      }
    }
  }

  static std::vector<std::string> append_name(std::vector<std::string> parents,
                                              const std::string& name) {
    parents.push_back(name);
    return parents;
  }

  static const CLI::App& find_command(const CLI::App& app, const std::string& name) {
    for (const CLI::App* command : app.get_subcommands(nullptr)) {
      if (command->get_name() == name) return *command;
    }
    refuse(fmt::format("table [{}] is no subcommand", name));
  }

  static bool is_option(const CLI::App& app, const std::string& name) {
    const CLI::Option* option = app.get_option_no_throw("--" + name);
    if (option == nullptr) option = app.get_option_no_throw(name);
    return option != nullptr && option->get_configurable();
  }

  [[noreturn]] static void refuse_key(const CLI::App& app, const std::string& full_name) {
    refuse(fmt::format(
        "key '{}' is not known; keys are the long option names of `tessera {} --help`", full_name,
        app.get_parent() != nullptr ? app.get_name() : std::string("SUBCOMMAND")));
  }

  static std::vector<std::string> texts(const toml::node& node, const std::string& name) {
    std::vector<std::string> values;
    if (const toml::array* array = node.as_array()) {
      for (const toml::node& element : *array) values.push_back(text(element, name));
    } else {
      values.push_back(text(node, name));
    }
    return values;
  }

  static std::string text(const toml::node& node, const std::string& name) {
    if (const auto* value = node.as_string()) return value->get();
    if (const auto* value = node.as_integer()) return std::to_string(value->get());
    if (const auto* value = node.as_floating_point()) return fmt::format("{}", value->get());
    if (const auto* value = node.as_boolean()) return value->get() ? "true" : "false";
    refuse(fmt::format("key '{}' is neither text, number, truth value nor a list of them", name));
  }

  const CLI::App& program_;
};

}  // namespace

void add_config_file(CLI::App& program) {
  program.set_config("--config", "", "options from a TOML file, one table per subcommand")
      ->type_name("FILE");
  program.config_formatter(std::make_shared<TomlReader>(program));
}

}  // namespace tessera::apps
