// SPDX-License-Identifier: Apache-2.0
#include "hugging_face_directory.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "base/error.hpp"
#include "base/log.hpp"
#include "input_file.hpp"
#include "strict_json.hpp"
#include "tessera/checkpoint/safetensors.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr std::int64_t max_small_file_bytes = 128 << 20;
constexpr std::int64_t max_config_bytes = 1 << 20;
constexpr std::int64_t max_headers_bytes = 1 << 30;  // of all files together

std::string read_text(const fs::path& path, int world_rank, std::int64_t max_bytes) {
  const InputFile input(path, world_rank);
  if (input.size_bytes() > max_bytes)
    fail(ErrorKind::format, "{} has {} bytes, more than the limit of {} for a file of this kind",
         path.string(), input.size_bytes(), max_bytes);
  std::string text(static_cast<std::size_t>(input.size_bytes()), '\0');
  input.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

/// What travels with the weights into other checkpoints, where present.
EmbeddedFiles read_small_files(const fs::path& directory, int world_rank) {
  EmbeddedFiles files;
  files["config.json"] = read_text(directory / "config.json", world_rank, max_config_bytes);
  for (const char* name :
       {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
        "tokenizer.model", "chat_template.jinja", "chat_template.json"})
    if (fs::exists(directory / name))
      files[name] = read_text(directory / name, world_rank, max_small_file_bytes);
  return files;
}

/// Names of entries that could have been the weights, for the error below.
std::string other_weight_files(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const auto extension = entry.path().extension();
    if (extension == ".bin" || extension == ".safetensors" || extension == ".pt" ||
        extension == ".pth")
      names.insert(entry.path().filename().string());
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

[[noreturn]] void fail_without_weights(const fs::path& directory) {
  const std::string others = other_weight_files(directory);
  if (others.empty())
    fail(ErrorKind::file,
         "{} has neither {} nor {} (it holds no weights) was the download complete?",
         directory.string(), single_name, index_name);
  fail(
      ErrorKind::file,
      "{} has neither {} nor {}, only {} (weights are read from safetensors; pickled files such as "
      "pytorch_model.bin are not supported) convert with transformers: "
      "save_pretrained(safe_serialization=True)",
      directory.string(), single_name, index_name, others);
}

using WeightMap = std::map<std::string, std::string>;  ///< tensor -> file

/// A file name of the index must stay in the directory.
void require_plain_name(const std::string& index, const std::string& tensor, const json& file) {
  const std::string name = file.is_string() ? file.get<std::string>() : "";
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string("/\\\0", 3)) != std::string::npos)
    fail(ErrorKind::format,
         "{}: tensor '{}' is placed in {} (an index may name only files of its own directory)",
         index, tensor, file.dump(-1, ' ', true, json::error_handler_t::replace));
}

WeightMap read_weight_map(const fs::path& path, int world_rank) {
  const std::string file = path.string();
  const json index = parse_strict_json(read_text(path, world_rank, max_small_file_bytes), file);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object())
    fail(ErrorKind::format, "{}: has no weight_map (it must say which file holds which tensor)",
         file);
  WeightMap weights;
  for (const auto& [tensor, holder] : map->items()) {
    require_plain_name(file, tensor, holder);
    weights[tensor] = holder.get<std::string>();
  }
  return weights;
}

/// The index, or nothing where the directory has the single file alone.
std::optional<WeightMap> read_index(const fs::path& directory, int world_rank) {
  const bool has_single = fs::exists(directory / single_name);
  if (!fs::exists(directory / index_name)) {
    if (!has_single) fail_without_weights(directory);
    return std::nullopt;
  }
  WeightMap weights = read_weight_map(directory / index_name, world_rank);
  const bool names_single = std::any_of(weights.begin(), weights.end(), [](const auto& entry) {
    return entry.second == single_name;
  });
  if (has_single && !names_single)
    fail(ErrorKind::format,
         "{} has both {} and an index of other files (which of the two is the model is unknown) "
         "move one of them away",
         directory.string(), single_name, index_name);
  return weights;
}

std::vector<TensorInfo> read_headers(const fs::path& directory, const std::set<std::string>& files,
                                     int world_rank) {
  std::vector<TensorInfo> tensors;
  std::int64_t headers_bytes = 0;
  for (const std::string& file : files) {
    SafetensorsHeader header = read_safetensors_header(directory / file, world_rank);
    headers_bytes += header.data_offset_bytes;
    if (headers_bytes > max_headers_bytes)
      fail(
          ErrorKind::format,
          "{}: the headers of its files have more than {} bytes together (rank 0 keeps them all in "
          "memory; no model needs that)",
          directory.string(), max_headers_bytes);
    for (SafetensorsTensor& tensor : header.tensors)
      tensors.push_back({std::move(tensor.name), tensor.dtype, std::move(tensor.shape), file,
                         header.data_offset_bytes + tensor.begin_bytes});
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
  return tensors;
}

/// Every disagreement between index and headers, one a line.
std::vector<std::string> disagreements(const WeightMap& weights,
                                       const std::vector<TensorInfo>& tensors) {
  std::vector<std::string> found;
  std::set<std::pair<std::string, std::string>> present;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const TensorInfo& tensor = tensors[k];
    present.emplace(tensor.name, tensor.file);
    if (k > 0 && tensors[k - 1].name == tensor.name)
      found.push_back(fmt::format("'{}' is in two files, {} and {}", tensor.name,
                                  tensors[k - 1].file, tensor.file));
    if (!weights.contains(tensor.name))
      found.push_back(fmt::format("'{}' is in {} but not in the index", tensor.name, tensor.file));
  }
  for (const auto& [tensor, file] : weights)
    if (!present.contains({tensor, file}))
      found.push_back(
          fmt::format("'{}' is in {} by the index but not by its header", tensor, file));
  return found;
}

void require_agreement(const fs::path& index, const WeightMap& weights,
                       const std::vector<TensorInfo>& tensors) {
  constexpr std::size_t shown = 20;
  auto found = disagreements(weights, tensors);
  if (found.empty()) return;
  const std::size_t total = found.size();
  if (total > shown) {
    found.resize(shown);
    found.push_back(fmt::format("... and {} more", total - shown));
  }
  fail(ErrorKind::keys,
       "{} and the headers of its files disagree in {} tensors (which values are meant is unknown) "
       "download or export the checkpoint again:\n  {}",
       index.string(), total, fmt::join(found, "\n  "));
}

}  // namespace

HuggingFaceDirectory scan_hugging_face_directory(const fs::path& directory, int world_rank) {
  if (!fs::exists(directory / "config.json"))
    fail(ErrorKind::file,
         "{} has no config.json (without it the architecture of the model is unknown) is it the "
         "directory that save_pretrained wrote?",
         directory.string());
  HuggingFaceDirectory result;
  const auto index = read_index(directory, world_rank);
  std::set<std::string> names;
  if (index) {
    for (const auto& [tensor, file] : *index) names.insert(file);
  } else {
    names.insert(single_name);
  }
  result.tensors = read_headers(directory, names, world_rank);
  if (index) require_agreement(directory / index_name, *index, result.tensors);
  result.files = read_small_files(directory, world_rank);
  result.config_json = result.files.at("config.json");
  return result;
}

std::string HuggingFaceDirectory::serialise() const {
  // CBOR, because tokenizer files need not be text.
  json packed = {{"tensors", json::array()}, {"files", json::object()}};
  for (const TensorInfo& tensor : tensors)
    packed["tensors"].push_back(
        {tensor.name, int(tensor.dtype), tensor.shape, tensor.file, tensor.offset_bytes});
  for (const auto& [name, content] : files)
    packed["files"][name] = json::binary({content.begin(), content.end()});
  std::string text;
  json::to_cbor(packed, text);
  return text;
}

HuggingFaceDirectory HuggingFaceDirectory::deserialise(const std::string& text) {
  const json packed = json::from_cbor(text);
  HuggingFaceDirectory result;
  for (const json& entry : packed.at("tensors"))
    result.tensors.push_back({entry[0].get<std::string>(), Dtype(entry[1].get<int>()),
                              entry[2].get<Shape>(), entry[3].get<std::string>(),
                              entry[4].get<std::int64_t>()});
  for (const auto& [name, content] : packed.at("files").items())
    result.files[name].assign(content.get_binary().begin(), content.get_binary().end());
  result.config_json = result.files.at("config.json");
  return result;
}

}  // namespace tessera::checkpoint
