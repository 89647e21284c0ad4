// SPDX-License-Identifier: Apache-2.0
#include "support/collective_check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace tessera::test {

std::string where_it_fails(const comm::Communicator& communicator,
                           const std::function<bool()>& condition) {
  std::string thrown;
  bool holds = false;
  try {
    holds = condition();
  } catch (const std::exception& error) {
    thrown = error.what();
  }
  const auto holds_on = communicator.all_gather_value<std::int32_t>("REQUIRE_ALL", holds ? 1 : 0);
  std::vector<int> failing;
  for (int r = 0; r < communicator.size(); ++r) {
    if (holds_on[static_cast<std::size_t>(r)] == 0) failing.push_back(r);
  }
  if (failing.empty()) return "";
  return fmt::format("fails on ranks {} of {}{}{}", fmt::join(failing, ", "), communicator.size(),
                     thrown.empty() ? "" : ", here by an exception: ", thrown);
}

std::string value_of_rank_0(const comm::Communicator& communicator, const std::string& value) {
  return communicator.broadcast_string("value of rank 0", value, 0);
}

std::string difference(std::span<const double> actual, std::span<const double> reference,
                       double rtol, double atol) {
  if (actual.size() != reference.size()) {
    return fmt::format("{} elements against {}", actual.size(), reference.size());
  }
  std::size_t num_bad = 0, first_bad = 0, worst = 0;
  double largest = -1;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const bool equal = actual[i] == reference[i];  // infinities
    const double error = equal ? 0.0 : std::fabs(actual[i] - reference[i]);
    if (!equal && !(error <= atol + rtol * std::fabs(reference[i])) && num_bad++ == 0)
      first_bad = i;
    if (error > largest || (std::isnan(error) && !std::isnan(largest))) {
      largest = error;
      worst = i;
    }
  }
  if (num_bad == 0) return "";
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return fmt::format(
      "rank {}: {} of {} elements differ, first [{}]: {} against {}; largest error {} at [{}]",
      rank, num_bad, actual.size(), first_bad, actual[first_bad], reference[first_bad], largest,
      worst);
}

}  // namespace tessera::test
