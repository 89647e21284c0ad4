// SPDX-License-Identifier: Apache-2.0
// Checks that ranks make together. A REQUIRE that fails on one rank alone makes the others hang in
// their next collective; these fail on all ranks or on none.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "comm/communicator.hpp"

namespace tessera::test {

/// Empty if `condition` holds on all ranks, else which ranks it fails on. An exception counts as a
/// failure. collective over communicator.
std::string where_it_fails(const comm::Communicator& communicator,
                           const std::function<bool()>& condition);

/// Rank 0's value. collective over communicator.
std::string value_of_rank_0(const comm::Communicator& communicator, const std::string& value);
template <class T>
requires std::is_trivially_copyable_v<T> T value_of_rank_0(const comm::Communicator& communicator,
                                                           T value) {
  communicator.broadcast("value of rank 0",
                         std::span<char>(reinterpret_cast<char*>(&value), sizeof value), 0);
  return value;
}
template <class T>
std::vector<T> value_of_rank_0(const comm::Communicator& communicator, std::vector<T> value) {
  value.resize(value_of_rank_0(communicator, value.size()));
  communicator.broadcast("value of rank 0", std::span<T>(value), 0);
  return value;
}

/// Empty if |actual - reference| <= atol + rtol |reference| everywhere; else the first index where
/// it does not (NaN never does), the largest error and this rank. local.
std::string difference(std::span<const double> actual, std::span<const double> reference,
                       double rtol, double atol);

template <std::ranges::input_range Range>
std::vector<double> as_doubles(const Range& values) {
  std::vector<double> result;
  for (const auto& value : values) result.push_back(static_cast<double>(value));
  return result;
}

}  // namespace tessera::test

/// Fails on all ranks unless the condition holds on all. collective.
#define REQUIRE_ALL(communicator, ...)                                   \
  do {                                                                   \
    const std::string failing_ranks_ = ::tessera::test::where_it_fails(  \
        (communicator), [&] { return static_cast<bool>(__VA_ARGS__); }); \
    INFO(#__VA_ARGS__);                                                  \
    REQUIRE(failing_ranks_ == "");                                       \
  } while (false)

/// Fails on the ranks whose value is not rank 0's (numbers, strings, vectors of numbers).
/// collective.
#define CHECK_SAME(communicator, ...)                                                           \
  do {                                                                                          \
    const auto own_value_ = (__VA_ARGS__);                                                      \
    const auto value_of_rank_0_ = ::tessera::test::value_of_rank_0((communicator), own_value_); \
    INFO(#__VA_ARGS__ " on this rank against rank 0");                                          \
    CHECK(own_value_ == value_of_rank_0_);                                                      \
  } while (false)

/// Elementwise comparison of two ranges of numbers. local.
#define CHECK_CLOSE(actual, reference, rtol, atol)                                    \
  do {                                                                                \
    INFO(#actual " against " #reference);                                             \
    CHECK(::tessera::test::difference(::tessera::test::as_doubles(actual),            \
                                      ::tessera::test::as_doubles(reference), (rtol), \
                                      (atol)) == "");                                 \
  } while (false)
