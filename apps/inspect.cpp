// SPDX-License-Identifier: Apache-2.0
// `tessera inspect`: what is in a checkpoint, from its headers alone.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/block_distribution.hpp"
#include "base/log.hpp"
#include "command.hpp"
#include "tessera/checkpoint/encoding.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::apps {
namespace {

constexpr double mib = 1024.0 * 1024.0;

struct InspectOptions {
  std::string model;
  bool as_json = false;
  std::int64_t expert = 0;  ///< 0: no word about ranks
};

/// A parameter of the model, however many tensors hold it, or a tensor that is none.
struct Row {
  std::string name;
  std::string dtype;  ///< "bf16", "mxfp4", "f32+bf16", ...
  Shape shape;        ///< transformers' orientation, in memory
  bool is_expert = false;
  std::int64_t bytes = 0;  ///< in the checkpoint
  std::vector<std::string> files;
};

/// A checkpoint, and the model that it says it is; no model where its configuration is not
/// understood.
struct Inspection {
  std::unique_ptr<checkpoint::Source> source;
  std::optional<model::ModelConfig> config;
  std::vector<Row> rows;  ///< sorted by name

  std::int64_t total_bytes() const {
    std::int64_t sum = 0;
    for (const Row& row : rows) sum += row.bytes;
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

using Names = std::unordered_set<std::string>;

/// Nothing where the checkpoint lacks a part of the parameter or has it otherwise than the model
/// needs it. Adds the tensors that hold it to `shown`.
std::optional<Row> parameter_row(const checkpoint::Source& source, const Parameter& parameter,
                                 const Shape& shape, Names& shown) {
  const std::string dtype = describe_encoding(source, parameter);
  if (dtype.empty()) return std::nullopt;
  std::set<std::string> files;
  for (const StoredPart& part : source.parts(parameter))
    for (const checkpoint::TensorInfo* tensor : find_part(source, parameter, part).found) {
      shown.insert(tensor->name);
      files.insert(tensor->file);
    }
  return Row{parameter.name,
             dtype,
             shape,
             parameter.is_expert,
             source.stored_bytes(parameter),
             {files.begin(), files.end()}};
}

/// A row for each of the model's parameters, under transformers' names whatever the checkpoint's.
std::vector<Row> parameter_rows(const checkpoint::Source& source, const model::ModelConfig& config,
                                Names& shown) {
  std::vector<std::string> names;
  for (const checkpoint::TensorInfo& tensor : source.tensors()) names.push_back(tensor.name);
  std::unordered_map<std::string, Shape> shapes;
  for (const Parameter& parameter : all_parameters(parameter_units(config)))
    shapes[parameter.name] = parameter.checkpoint_shape();
  std::vector<Row> rows;
  const auto units = parameter_units(config, detect_naming(config, names));
  for (const Parameter& parameter : all_parameters(units))
    if (auto row = parameter_row(source, parameter, shapes.at(parameter.name), shown))
      rows.push_back(std::move(*row));
  return rows;
}

Inspection inspect(const comm::Communicator& world, const InspectOptions& options) {
  Inspection inspection;
  inspection.source = checkpoint::Source::open(world, trainer::model_path(world, options.model));
  inspection.config = understood_config(*inspection.source);
  Names shown;
  if (inspection.config)
    inspection.rows = parameter_rows(*inspection.source, *inspection.config, shown);
  for (const checkpoint::TensorInfo& tensor : inspection.source->tensors())
    if (!shown.contains(tensor.name))
      inspection.rows.push_back({tensor.name,
                                 to_string(tensor.dtype),
                                 tensor.shape,
                                 false,
                                 tensor.bytes(),
                                 {tensor.file}});
  std::sort(inspection.rows.begin(), inspection.rows.end(),
            [](const Row& a, const Row& b) { return a.name < b.name; });
  return inspection;
}

Shape shape_on_rank(const Row& row, std::int64_t num_ranks, std::int64_t rank) {
  Shape shape = row.shape;
  shape[0] = BlockDistribution{shape[0], num_ranks}.count(rank);
  return shape;
}

/// "[8, 2880, 5760]", for uneven experts the two shapes that occur.
std::string shapes_on_ranks(const Row& row, std::int64_t num_ranks) {
  const std::string most = to_string(shape_on_rank(row, num_ranks, 0));
  const std::string least = to_string(shape_on_rank(row, num_ranks, num_ranks - 1));
  return most == least ? most : most + " or " + least;
}

/// "model-00001-of-00002.safetensors", "... and 1 more"
std::string describe_files(const Row& row) {
  if (row.files.size() == 1) return row.files.front();
  return fmt::format("{} and {} more", row.files.front(), row.files.size() - 1);
}

void print_table(const Inspection& inspection, std::int64_t expert) {
  std::size_t name_width = 4, dtype_width = 5, shape_width = 5;
  for (const Row& row : inspection.rows) {
    name_width = std::max(name_width, row.name.size());
    dtype_width = std::max(dtype_width, row.dtype.size());
    shape_width = std::max(shape_width, to_string(row.shape).size());
  }
  const auto line = [&](const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& size, const std::string& rest) {
    fmt::print("{:<{}}  {:<{}}  {:<{}}  {:>10}  {}\n", name, name_width, dtype, dtype_width, shape,
               shape_width, size, rest);
  };
  line("name", "dtype", "shape", "MiB", expert > 0 ? "on one of its ranks" : "file");
  for (const Row& row : inspection.rows) {
    std::string rest = describe_files(row);
    if (expert > 0) rest = row.is_expert ? shapes_on_ranks(row, expert) : std::string("-");
    line(row.name, row.dtype, to_string(row.shape),
         fmt::format("{:.3f}", static_cast<double>(row.bytes) / mib), rest);
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
  fmt::print("\n{} tensors, {} parameters, {}\n", inspection.source->tensors().size(),
             inspection.total_elements(),
             format_bytes(static_cast<double>(inspection.total_bytes())));
}

nlohmann::ordered_json tensor_json(const Row& row, std::int64_t expert) {
  nlohmann::ordered_json json{{"name", row.name},
                              {"dtype", row.dtype},
                              {"shape", row.shape},
                              {"bytes", row.bytes},
                              {"files", row.files}};
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
  CLI::App* app = add_command(
      program, "inspect", "Show what is in a checkpoint: model, tensors, sizes, step.",
      "  tessera inspect gpt-oss-20b/\n"
      "  tessera inspect run/step-00000100.h5 --json\n"
      "  tessera inspect gpt-oss-20b/ --expert 4    # the experts' shapes on 4 ranks\n"
      "Only headers are read. Parameters have the names and shapes that transformers gives "
      "them in memory, the\nexpert first, however many tensors hold them.");
  app->add_option("model", options->model,
                  "Hugging Face directory, Tessera file, or a run's directory")
      ->required()
      ->type_name("MODEL");
  app->add_flag("--json", options->as_json, "print JSON");
  app->add_option("--expert", options->expert,
                  "show the experts' shapes on this many ranks of the expert axis")
      ->check(positive())
      ->type_name("E");
  return {app, [options] { return run(*options); }, [] { return false; }};
}

}  // namespace tessera::apps
