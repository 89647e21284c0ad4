// SPDX-License-Identifier: Apache-2.0
// Passes what rank 0 read or was told to all ranks, as JSON.
#include <nlohmann/json.hpp>

#include "comm/agree.hpp"
#include "hdf5_describe.hpp"

namespace tessera::checkpoint {
namespace {

using nlohmann::json;

// Rank 0 serialises; its failure (a name that is not UTF-8) becomes everybody's.
template <class Make>
json broadcast_json(const comm::Communicator& world, std::string_view what, Make&& make) {
  std::string text = comm::agreed(world, what, [&]() -> std::string {
    if (world.rank() != 0) return "";
    try {
      return make().dump();
    } catch (const json::exception& error) {
      fail(ErrorKind::format, "names or texts that are not UTF-8: {}", error.what());
    }
  });
  return json::parse(world.broadcast_string(what, std::move(text), 0));
}

json to_json(const TrainingState& state) {
  return {{"step", state.step},
          {"optimizer_steps", state.optimizer_steps},
          {"data_position", state.data_position},
          {"seed", state.seed},
          {"optimizer", state.optimizer},
          {"training_json", state.training_json}};
}

TrainingState state_from(const json& record) {
  TrainingState state;
  record.at("step").get_to(state.step);
  record.at("optimizer_steps").get_to(state.optimizer_steps);
  record.at("data_position").get_to(state.data_position);
  record.at("seed").get_to(state.seed);
  record.at("optimizer").get_to(state.optimizer);
  record.at("training_json").get_to(state.training_json);
  return state;
}

json to_json(const StoredDataset& dataset) {
  const TensorInfo& info = dataset.info;
  return json::array({dataset.group, info.name, info.dtype, info.shape, info.file,
                      info.offset_bytes, dataset.is_transposed, dataset.is_expert,
                      dataset.origin.dtypes, dataset.origin.mxfp4,
                      dataset.fingerprint.num_elements});
}

StoredDataset dataset_from(const json& d) {
  StoredDataset dataset{.group = d[0],
                        .info = {d[1], d[2].get<Dtype>(), d[3], d[4], d[5]},
                        .is_transposed = d[6],
                        .is_expert = d[7],
                        .origin = {d[8].get<std::vector<Dtype>>(), d[9]}};
  d[10].get_to(dataset.fingerprint.num_elements);
  return dataset;
}

// Apart from the JSON, because a model may have a great many of them.
void broadcast_fingerprints(const comm::Communicator& world, const FileDescription& description,
                            FileDescription& result) {
  std::vector<std::uint64_t> words;
  for (const StoredDataset& dataset : description.datasets) {
    for (const auto [low, high] : dataset.fingerprint.experts)
      words.insert(words.end(), {low, high});
  }
  words.resize(static_cast<std::size_t>(2 * result.num_fingerprints));
  if (words.empty()) return;
  world.broadcast("fingerprints", std::span<std::uint64_t>(words), 0);
  const std::uint64_t* word = words.data();
  for (StoredDataset& dataset : result.datasets) {
    TensorFingerprint& fingerprint = dataset.fingerprint;
    for (std::size_t i = 0; i < fingerprint.num_elements.size(); ++i, word += 2) {
      fingerprint.experts.push_back({word[0], word[1]});
    }
  }
}

json to_json(const FileDescription& description) {
  json datasets = json::array(), files = json::array();
  for (const StoredDataset& d : description.datasets) {
    datasets.push_back(to_json(d));
  }
  for (const auto& [name, content] : description.files) files.push_back(name);
  return {
      {"version", description.version},       {"state", to_json(description.state)},
      {"file_bytes", description.file_bytes}, {"num_fingerprints", description.num_fingerprints},
      {"datasets", std::move(datasets)},      {"files", std::move(files)}};
}

}  // namespace

FileDescription broadcast_description(const comm::Communicator& world,
                                      const FileDescription& description) {
  const json record =
      broadcast_json(world, "describe checkpoint", [&] { return to_json(description); });
  FileDescription result;
  result.state = state_from(record.at("state"));
  record.at("file_bytes").get_to(result.file_bytes);
  record.at("version").get_to(result.version);
  record.at("num_fingerprints").get_to(result.num_fingerprints);
  for (const json& d : record.at("datasets")) result.datasets.push_back(dataset_from(d));
  broadcast_fingerprints(world, description, result);
  for (const std::string name : record.at("files")) {
    std::string content = world.rank() == 0 ? description.files.at(name) : "";
    result.files[name] = world.broadcast_string("embedded file", std::move(content), 0);
  }
  return result;
}

TrainingState broadcast_state(const comm::Communicator& world, const TrainingState& state) {
  return state_from(broadcast_json(world, "training state", [&] { return to_json(state); }));
}

FileList broadcast_file_list(const comm::Communicator& world, const EmbeddedFiles& files) {
  const json record = broadcast_json(world, "embedded files", [&] {
    json list = json::array();
    for (const auto& [name, content] : files) list.push_back({name, std::ssize(content)});
    return list;
  });
  FileList list;
  for (const json& entry : record) list.emplace_back(entry[0], entry[1]);
  return list;
}

}  // namespace tessera::checkpoint
