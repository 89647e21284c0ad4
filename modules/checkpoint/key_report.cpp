// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/key_report.hpp"

#include <algorithm>
#include <optional>
#include <unordered_set>

#include "base/error.hpp"
#include "base/log.hpp"
#include "tessera/checkpoint/encoding.hpp"

namespace tessera::checkpoint {
namespace {

/// Glob match with `*` alone, by backtracking to the last star.
bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(pattern, name); });
}

/// An entry of KeyOptions::allow_missing.
struct AllowedMissing {
  std::string pattern;
  Initialisation initialisation = Initialisation::as_model;
};

AllowedMissing parse_allowed(const std::string& entry) {
  const std::size_t equals = entry.rfind('=');
  if (equals == std::string::npos) return {entry, Initialisation::as_model};
  const std::string word = entry.substr(equals + 1), pattern = entry.substr(0, equals);
  if (word == "zeros") return {pattern, Initialisation::zeros};
  if (word == "ones") return {pattern, Initialisation::ones};
  if (word == "normal") return {pattern, Initialisation::normal};
  fail(ErrorKind::usage,
       "'{}': '{}' is no way to initialise a tensor that may be missing; give PATTERN or "
       "PATTERN=zeros, =ones or =normal",
       entry, word);
}

/// The first entry that covers all of the parameter, or nothing.
std::optional<AllowedMissing> find_allowed(const std::vector<std::string>& allow_missing,
                                           const Parameter& parameter,
                                           std::span<const StoredPart> parts) {
  for (const std::string& entry : allow_missing) {
    AllowedMissing allowed = parse_allowed(entry);
    const auto covers = [&](const StoredPart& part) {
      return matches(allowed.pattern, part.tensor);
    };
    if (matches(allowed.pattern, parameter.name) || std::all_of(parts.begin(), parts.end(), covers))
      return allowed;
  }
  return std::nullopt;
}

void append_list(std::string& text, const char* title, const std::vector<std::string>& entries) {
  constexpr std::size_t shown = 20;
  if (entries.empty()) return;
  text += fmt::format("{} ({}):\n", title, entries.size());
  for (std::size_t k = 0; k < std::min(shown, entries.size()); ++k)
    text += fmt::format("  {}\n", entries[k]);
  if (entries.size() > shown) text += fmt::format("  ... and {} more\n", entries.size() - shown);
}

using Names = std::unordered_set<std::string>;

/// `expected` gets the names of all tensors that belong to the parameter.
void compare_one(const Source& source, const Parameter& parameter, const KeyOptions& options,
                 KeyReport& report, Names& expected) {
  const std::vector<StoredPart> parts = source.parts(parameter);
  std::vector<std::string> missing;
  for (const StoredPart& part : parts) {
    const EncodedPart encoded = find_part(source, parameter, part);
    for (const TensorInfo* tensor : encoded.found) expected.insert(tensor->name);
    if (encoded.is_missing())
      missing.push_back(part.tensor);
    else if (encoded.is_readable())
      ++report.num_fitting;
    else
      report.mismatched.push_back(encoded.problem);
  }
  if (missing.empty()) return;
  const bool is_allowed = find_allowed(options.allow_missing, parameter, parts).has_value();
  if (is_allowed && missing.size() < parts.size())
    for (std::string& name : missing)
      name += fmt::format(
          ": missing though other parts of {} are there (it can be initialised "
          "only as a whole)",
          parameter.name);
  auto& list = !is_allowed                      ? report.missing
               : missing.size() == parts.size() ? report.allowed_missing
                                                : report.mismatched;
  list.insert(list.end(), missing.begin(), missing.end());
}

/// Of a tensor that is no part of any parameter.
std::vector<std::string>& list_of_others(KeyReport& report, const KeyOptions& options,
                                         const std::string& name) {
  if (matches_any(options.ignored, name)) return report.ignored;
  if (matches_any(options.tied, name)) return report.tied;
  if (matches_any(options.allow_unexpected, name)) return report.allowed_unexpected;
  return report.unexpected;
}

}  // namespace

std::string KeyReport::describe() const {
  std::string text = fmt::format("as expected ({})\n", num_fitting);
  append_list(text, "missing", missing);
  append_list(text, "unexpected", unexpected);
  append_list(text, "mismatched", mismatched);
  append_list(text, "missing, allowed", allowed_missing);
  append_list(text, "unexpected, allowed", allowed_unexpected);
  append_list(text, "ignored, never read", ignored);
  append_list(text, "tied to another tensor", tied);
  return text;
}

Initialisation initialisation_of(const std::vector<std::string>& allow_missing,
                                 const Parameter& parameter, std::span<const StoredPart> parts) {
  const auto allowed = find_allowed(allow_missing, parameter, parts);
  return allowed ? allowed->initialisation : Initialisation::as_model;
}

KeyReport compare_keys(const Source& source, std::span<const Parameter> parameters,
                       const KeyOptions& options) {
  for (const std::string& entry : options.allow_missing) parse_allowed(entry);
  KeyReport report;
  Names expected;
  for (const Parameter& parameter : parameters)
    compare_one(source, parameter, options, report, expected);
  for (const TensorInfo& tensor : source.tensors())
    if (!expected.contains(tensor.name))
      list_of_others(report, options, tensor.name).push_back(tensor.name);
  for (auto* list :
       {&report.missing, &report.unexpected, &report.mismatched, &report.allowed_missing,
        &report.allowed_unexpected, &report.ignored, &report.tied}) {
    std::sort(list->begin(), list->end());
    // Several parameters may be parts of one tensor.
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  return report;
}

void require_keys(const Source& source, std::span<const Parameter> parameters,
                  const KeyOptions& options) {
  const KeyReport report = compare_keys(source, parameters, options);
  if (!report.ok())
    fail(ErrorKind::keys,
         "the {} {} does not fit the model (weights would stay unset, be ignored or be misread):\n"
         "{}Is config.json the one of these weights? Missing and unexpected tensors can be allowed "
         "by name.",
         source.kind(), source.path().string(), report.describe());
  if (!report.allowed_missing.empty() || !report.allowed_unexpected.empty())
    log_warning("the {} {} does not fit the model in every tensor, as allowed:\n{}", source.kind(),
                source.path().string(), report.describe());
}

}  // namespace tessera::checkpoint
