// SPDX-License-Identifier: Apache-2.0
// A small HDF5 file of named values: texts, f64 [n] and i64 [n].
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace tessera::study {

/// Each value is a dataset /<name>. Written to a temporary name first, so that a file is whole. All
/// local; throw Error::file, and Error::format where a name is absent or of another kind.
class ResultDocument {
 public:
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<double>> numbers;
  std::map<std::string, std::vector<std::int64_t>> counts;

  void save(const std::filesystem::path& path) const;
  static ResultDocument load(const std::filesystem::path& path);

  const std::string& text(const std::string& name) const;
  const std::vector<double>& number(const std::string& name) const;
  const std::vector<std::int64_t>& count(const std::string& name) const;

 private:
  std::string path_;
};

}  // namespace tessera::study
