// SPDX-License-Identifier: Apache-2.0
// `tessera inspect`: what is in a checkpoint, from its headers alone.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/block_distribution.hpp"
#include "base/log.hpp"
#include "command.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::apps {
namespace {

constexpr double mib = 1024.0 * 1024.0;

struct InspectOptions {
  std::string model;
  bool as_json = false;
  std::int64_t expert = 0;  ///< 0: no word about ranks
};

/// One tensor as `inspect` shows it.
struct Row {
  const checkpoint::TensorInfo* tensor = nullptr;
  Shape shape;  ///< transformers' orientation
  bool is_expert = false;
};

/// A checkpoint, and the model that it says it is; no model where its configuration is not
/// understood.
struct Inspection {
  std::unique_ptr<checkpoint::Source> source;
  std::optional<model::ModelConfig> config;
  std::vector<Row> rows;

  std::int64_t total_bytes() const {
    std::int64_t sum = 0;
    for (const Row& row : rows) sum += row.tensor->bytes();
    return sum;
  }
  std::int64_t total_elements() const {
    std::int64_t sum = 0;
    for (const Row& row : rows) sum += num_elements(row.shape);
    return sum;
  }
  /// Null for a Hugging Face directory.
  const checkpoint::TrainingState* state() const {
    const auto* file = dynamic_cast<const checkpoint::Hdf5Source*>(source.get());
    return file != nullptr ? &file->state() : nullptr;
  }
};

// A tensor list is worth showing for a model that Tessera cannot run, too.
std::optional<model::ModelConfig> understood_config(const checkpoint::Source& source) {
  try {
    return model::parse_config(source.config_json(), source.path().string());
  } catch (const Error& error) {
    log_warning("{}", error.what());
    return std::nullopt;
  }
}

Inspection inspect(const comm::Communicator& world, const InspectOptions& options) {
  Inspection inspection;
  inspection.source = checkpoint::Source::open(world, options.model);
  inspection.config = understood_config(*inspection.source);
  std::vector<Parameter> parameters;
  if (inspection.config)
    parameters = model::all_parameters(model::parameter_units(*inspection.config));
  const bool is_tessera_file = inspection.state() != nullptr;
  for (const checkpoint::TensorInfo& tensor : inspection.source->tensors()) {
    Row row{&tensor, tensor.shape, false};
    const auto known = std::find_if(parameters.begin(), parameters.end(),
                                    [&](const Parameter& p) { return p.name == tensor.name; });
    if (known != parameters.end()) {
      row.is_expert = known->is_expert;
      if (is_tessera_file && tensor.shape == known->shape) row.shape = known->checkpoint_shape();
    }
    inspection.rows.push_back(std::move(row));
  }
  return inspection;
}

Shape shape_on_rank(const Row& row, std::int64_t num_ranks, std::int64_t rank) {
  Shape shape = row.shape;
  if (shape.empty()) return shape;  // a broken checkpoint: a scalar with an expert's name
  shape[0] = BlockDistribution{shape[0], num_ranks}.count(rank);
  return shape;
}

/// "[8, 2880, 5760]", for uneven experts the two shapes that occur.
std::string shapes_on_ranks(const Row& row, std::int64_t num_ranks) {
  const std::string most = to_string(shape_on_rank(row, num_ranks, 0));
  const std::string least = to_string(shape_on_rank(row, num_ranks, num_ranks - 1));
  return most == least ? most : most + " or " + least;
}

void print_table(const Inspection& inspection, std::int64_t expert) {
  std::size_t name_width = 4, shape_width = 5;
  for (const Row& row : inspection.rows) {
    name_width = std::max(name_width, row.tensor->name.size());
    shape_width = std::max(shape_width, to_string(row.shape).size());
  }
  const auto line = [&](const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& size, const std::string& rest) {
    fmt::print("{:<{}}  {:<5}  {:<{}}  {:>10}  {}\n", name, name_width, dtype, shape, shape_width,
               size, rest);
  };
  line("name", "dtype", "shape", "MiB", expert > 0 ? "on one of its ranks" : "file");
  for (const Row& row : inspection.rows) {
    const checkpoint::TensorInfo& tensor = *row.tensor;
    std::string rest = tensor.file;
    if (expert > 0) rest = row.is_expert ? shapes_on_ranks(row, expert) : std::string("-");
    line(tensor.name, to_string(tensor.dtype), to_string(row.shape),
         fmt::format("{:.3f}", static_cast<double>(tensor.bytes()) / mib), rest);
  }
}

void print_text(const Inspection& inspection, const InspectOptions& options) {
  fmt::print("checkpoint  {} ({})\n", inspection.source->path().string(),
             inspection.source->kind());
  if (inspection.config) fmt::print("model       {}\n", model::describe(*inspection.config));
  if (const checkpoint::TrainingState* state = inspection.state()) {
    fmt::print("training    step {}, {} sequences consumed, seed {}, {}\n", state->step,
               state->data_position, state->seed,
               state->optimizer.empty()
                   ? std::string("weights alone")
                   : fmt::format("{} after {} updates", state->optimizer, state->optimizer_steps));
  }
  if (options.expert > 0 && inspection.config) {
    fmt::print(
        "grid        {} experts over {} ranks of the expert axis; dense tensors are sharded over "
        "all ranks\n",
        inspection.config->num_experts, options.expert);
  }
  fmt::print("\n");
  print_table(inspection, options.expert);
  fmt::print("\n{} tensors, {} parameters, {}\n", inspection.rows.size(),
             inspection.total_elements(),
             format_bytes(static_cast<double>(inspection.total_bytes())));
}

nlohmann::ordered_json tensor_json(const Row& row, std::int64_t expert) {
  nlohmann::ordered_json json{{"name", row.tensor->name},
                              {"dtype", to_string(row.tensor->dtype)},
                              {"shape", row.shape},
                              {"bytes", row.tensor->bytes()},
                              {"file", row.tensor->file}};
  for (std::int64_t rank = 0; row.is_expert && rank < expert; ++rank) {
    json["rank_shapes"].push_back(shape_on_rank(row, expert, rank));
  }
  return json;
}

/// As a string where it is no JSON.
nlohmann::ordered_json config_json(const std::string& text) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(text, nullptr, false);
  return json.is_discarded() ? nlohmann::ordered_json(text) : json;
}

void print_json(const Inspection& inspection, const InspectOptions& options) {
  nlohmann::ordered_json json{{"path", inspection.source->path().string()},
                              {"kind", inspection.source->kind()},
                              {"config", config_json(inspection.source->config_json())}};
  if (inspection.config) json["model"] = model::describe(*inspection.config);
  if (const checkpoint::TrainingState* state = inspection.state()) {
    json["training"] = {{"step", state->step},
                        {"optimizer", state->optimizer},
                        {"optimizer_steps", state->optimizer_steps},
                        {"data_position", state->data_position},
                        {"seed", state->seed}};
  }
  json["parameters"] = inspection.total_elements();
  json["bytes"] = inspection.total_bytes();
  for (const Row& row : inspection.rows)
    json["tensors"].push_back(tensor_json(row, options.expert));
  // Names and configuration come from files that need not be UTF-8.
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

int run(const InspectOptions& options) {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const Inspection inspection = inspect(world, options);
  if (options.expert > 0 && inspection.config && options.expert > inspection.config->num_experts) {
    fail(ErrorKind::usage, "{} experts cannot be dealt to {} ranks (each must hold one)",
         inspection.config->num_experts, options.expert);
  }
  if (world.rank() != 0) return 0;
  options.as_json ? print_json(inspection, options) : print_text(inspection, options);
  std::fflush(stdout);
  return 0;
}

}  // namespace

Command add_inspect(CLI::App& program) {
  const auto options = std::make_shared<InspectOptions>();
  CLI::App* app =
      add_command(program, "inspect", "Show what is in a checkpoint: model, tensors, sizes, step.",
                  "  tessera inspect gpt-oss-20b/\n"
                  "  tessera inspect run/step-00000100.h5 --json\n"
                  "  tessera inspect gpt-oss-20b/ --expert 4    # the experts' shapes on 4 ranks\n"
                  "Only headers are read. Shapes are those of transformers, the expert first.");
  app->add_option("model", options->model, "Hugging Face directory or Tessera file")
      ->required()
      ->type_name("MODEL");
  app->add_flag("--json", options->as_json, "print JSON");
  app->add_option("--expert", options->expert,
                  "show the experts' shapes on this many ranks of the expert axis")
      ->check(positive())
      ->type_name("E");
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
