// SPDX-License-Identifier: Apache-2.0
#include "scaling_series.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace tessera::study {
namespace {

double tokens_per_second(const StudyResult& result) {
  return static_cast<double>(result.shape.batch * result.shape.length) / result.step().value;
}

double ranks(const StudyResult& result) { return static_cast<double>(result.shape.num_ranks); }

}  // namespace

std::vector<ScalingSeries> scaling_series(const std::vector<StudyResult>& results) {
  using Key = std::tuple<std::string, std::string, Dtype, std::int64_t, std::string>;
  std::map<Key, std::vector<const StudyResult*>> groups;
  for (const StudyResult& result : results) {
    groups[{result.series, result.routing, result.shape.dtype, result.shape.length,
            result.config_json}]
        .push_back(&result);
  }
  std::vector<ScalingSeries> all;
  for (auto& [key, group] : groups) {
    std::stable_sort(group.begin(), group.end(), [](const StudyResult* a, const StudyResult* b) {
      return std::pair(a->shape.num_ranks, a->step().value) <
             std::pair(b->shape.num_ranks, b->step().value);
    });
    const StudyResult& first = *group.front();
    ScalingSeries series{std::get<0>(key), {}};
    for (const StudyResult* result : group) {
      const double speed_up = tokens_per_second(*result) / tokens_per_second(first);
      series.points.push_back({result, speed_up, speed_up * ranks(first) / ranks(*result)});
    }
    all.push_back(std::move(series));
  }
  return all;
}

std::vector<ScalingPoint> curve_of(const ScalingSeries& series) {
  std::vector<ScalingPoint> curve;
  for (const ScalingPoint& point : series.points) {  // sorted: the quickest comes first
    if (!curve.empty() && curve.back().result->shape.num_ranks == point.result->shape.num_ranks) {
      continue;
    }
    curve.push_back(point);
  }
  return curve;
}

}  // namespace tessera::study
