// SPDX-License-Identifier: Apache-2.0
// .npy files for tests, as numpy.save writes them (version 1.0).
#pragma once

#include <string>

namespace tessera::test {

inline std::string npy_bytes(std::string dictionary, const std::string& data) {
  while ((10 + dictionary.size() + 1) % 64 != 0) dictionary += ' ';
  dictionary += '\n';
  const auto length = dictionary.size();
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(length & 0xff);
  file += static_cast<char>(length >> 8);
  return file + dictionary + data;
}

template <class Container>
std::string raw_bytes(const Container& values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(typename Container::value_type)};
}

}  // namespace tessera::test
