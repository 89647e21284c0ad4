// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/key_report.hpp"

#include <algorithm>
#include <unordered_set>

#include "base/error.hpp"
#include "base/log.hpp"

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

bool holds_weights(Dtype dtype) {
  return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16 || dtype == Dtype::f64;
}

void append_list(std::string& text, const char* title, const std::vector<std::string>& entries) {
  constexpr std::size_t shown = 20;
  if (entries.empty()) return;
  text += fmt::format("{} ({}):\n", title, entries.size());
  for (std::size_t k = 0; k < std::min(shown, entries.size()); ++k)
    text += fmt::format("  {}\n", entries[k]);
  if (entries.size() > shown) text += fmt::format("  ... and {} more\n", entries.size() - shown);
}

void compare_one(const Source& source, const Parameter& parameter, const KeyOptions& options,
                 KeyReport& report) {
  const TensorInfo* tensor = source.find(parameter.name);
  if (tensor == nullptr) {
    const bool allowed = matches_any(options.allow_missing, parameter.name);
    (allowed ? report.allowed_missing : report.missing).push_back(parameter.name);
    return;
  }
  const Shape needed = source.stored_shape(parameter);
  const bool is_weight = holds_weights(tensor->dtype);
  if (is_weight && tensor->shape == needed) return;
  report.mismatched.push_back(fmt::format(
      "{}: checkpoint has {} {}, the model needs {}{}", parameter.name, to_string(tensor->dtype),
      to_string(tensor->shape), is_weight ? "" : "f32, bf16, f16 or f64 ", to_string(needed)));
}

}  // namespace

std::string KeyReport::describe() const {
  std::string text;
  append_list(text, "missing", missing);
  append_list(text, "unexpected", unexpected);
  append_list(text, "mismatched", mismatched);
  append_list(text, "missing, allowed", allowed_missing);
  append_list(text, "unexpected, allowed", allowed_unexpected);
  return text;
}

KeyReport compare_keys(const Source& source, std::span<const Parameter> parameters,
                       const KeyOptions& options) {
  KeyReport report;
  std::unordered_set<std::string> expected;
  for (const Parameter& parameter : parameters) {
    expected.insert(parameter.name);
    compare_one(source, parameter, options, report);
  }
  for (const TensorInfo& tensor : source.tensors()) {
    if (expected.contains(tensor.name)) continue;
    const bool allowed = matches_any(options.allow_unexpected, tensor.name);
    (allowed ? report.allowed_unexpected : report.unexpected).push_back(tensor.name);
  }
  for (auto* list : {&report.missing, &report.unexpected, &report.mismatched,
                     &report.allowed_missing, &report.allowed_unexpected})
    std::sort(list->begin(), list->end());
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
