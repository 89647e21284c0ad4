// SPDX-License-Identifier: Apache-2.0
// A model family as its map in share/families describes it: mathematics, keys of config.json with
// their defaults, parameters and where a checkpoint has them. The maps are compiled into the
// library; their format is described in share/families/README.md.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tessera/model/config.hpp"

namespace tessera::model {

/// Which layers see a sliding window only, where config.json has no layer_types.
enum class SlidingLayers {
  none,
  alternating,             ///< layers 0, 2, ...
  all,                     ///< all, if sliding_window is given
  from_max_window_layers,  ///< those from max_window_layers on, if sliding_window is given
};

/// A parameter of the map: names within a layer are relative to the layer's prefix.
struct ParameterTemplate {
  std::string name;
  std::vector<std::string> shape;   ///< symbols, see family_parameters.hpp
  std::vector<std::string> when;    ///< conditions that must all hold, "not " before one negates it
  std::vector<std::string> stored;  ///< tensors with equal runs of each expert; empty: as `name`
  std::string original;             ///< tensor of the original release; empty: it has none
  std::vector<std::string> rows;  ///< symbols: row counts of what `original` fuses; empty: nothing
  std::size_t part = 0;           ///< which of `rows` this parameter is
  bool transposed = false;        ///< Parameter::transposed of the Hugging Face naming
  bool mxfp4 = false;
  bool buffer = false;
};

struct Family {
  std::string model_type;
  std::string architecture;  ///< transformers' class

  bool has_latent_attention = false;
  QueryKeyNorm query_key_norm = QueryKeyNorm::none;
  SlidingLayers sliding_layers = SlidingLayers::none;
  kernel::Activation activation = kernel::Activation::swiglu;
  std::string router;  ///< name of its parameters within a layer; empty: a dense family
  moe::RouterScore router_score = moe::RouterScore::softmax;
  bool has_correction_bias = false;
  bool has_aux_loss = false;

  nlohmann::json defaults;                     ///< of the configuration keys that this family reads
  std::set<std::string> optional;              ///< keys that it reads and that may be null
  std::set<std::string> harmless;              ///< keys without influence on the mathematics
  std::map<std::string, std::string> aliases;  ///< other spelling -> key
  std::map<std::string, std::string> repeats;  ///< key that may only repeat another -> that other
  nlohmann::json required;                     ///< key -> the only value that is implemented

  std::string layer_prefix;           ///< with {layer}
  std::string original_layer_prefix;  ///< empty: no original naming
  std::vector<std::string> ignored;   ///< patterns; {beyond}: a layer after the last
  std::vector<ParameterTemplate> embedding, layer, expert, head;

  bool has_experts() const { return !router.empty(); }
  bool may_be_mxfp4() const;
};

/// All families by model_type, parsed at the first call. Throws Error::internal naming the map when
/// one is malformed. local.
const std::map<std::string, Family>& families();

/// Throws Error::config where no family has that model_type; `name` is the key for the message.
const Family& find_family(const std::string& model_type, const std::string& name);

/// A map as it was compiled in (family_texts.cpp, generated).
struct FamilyText {
  const char* file;
  const char* text;
};
const std::vector<FamilyText>& family_texts();

}  // namespace tessera::model
