// SPDX-License-Identifier: Apache-2.0
#include "measured_messages.hpp"

#include <mpi.h>

#include <algorithm>
#include <tessera/study/measure.hpp>

#include "comm/collectives.hpp"
#include "comm/watchdog.hpp"

namespace tessera::study {
namespace {

constexpr std::size_t short_bytes = 8, long_bytes = 4 << 20;

/// Seconds of `num_rounds` exchanges with `partner`, over their number; none: only waits.
double exchange_seconds(const comm::Communicator& world, int partner, std::vector<char>& out,
                        std::vector<char>& in, int num_rounds) {
  const int count = static_cast<int>(out.size());
  const double start = MPI_Wtime();
  for (int i = 0; i < num_rounds && partner >= 0; ++i) {
    comm::check_mpi(MPI_Sendrecv(out.data(), count, MPI_CHAR, partner, 0, in.data(), count,
                                 MPI_CHAR, partner, 0, world.mpi(), MPI_STATUS_IGNORE),
                    "MPI_Sendrecv");
  }
  return (MPI_Wtime() - start) / num_rounds;
}

/// Samples of the slowest pair.
std::vector<double> sample_exchange(const comm::Communicator& world, int partner, std::size_t bytes,
                                    int num_repeats) {
  const comm::Phase phase("exchange of messages", world.options().deadline);
  std::vector<char> out(bytes), in(bytes);
  const int num_rounds = bytes < 1024 ? 200 : 5;
  exchange_seconds(world, partner, out, in, 2);  // opens the connection
  std::vector<double> samples;
  for (int i = 0; i < num_repeats; ++i) {
    world.barrier("start of a repeat");
    samples.push_back(exchange_seconds(world, partner, out, in, num_rounds));
  }
  return slowest(world, samples);
}

/// Each rank's node, counted from 0, and its place on it.
struct Place {
  std::int32_t node = 0, index = 0;
};

std::vector<Place> places(const comm::ProcessGrid& grid) {
  const std::vector<std::int32_t> leaders = grid.world().all_gather_value(
      "node of each rank", static_cast<std::int32_t>(grid.node().world_ranks().front()));
  std::vector<std::int32_t> nodes(leaders);
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  std::vector<std::int32_t> seen(nodes.size(), 0);
  std::vector<Place> result;
  for (const std::int32_t leader : leaders) {
    const auto node = std::lower_bound(nodes.begin(), nodes.end(), leader) - nodes.begin();
    result.push_back({static_cast<std::int32_t>(node), seen[static_cast<std::size_t>(node)]++});
  }
  return result;
}

/// The rank at that place, or -1.
int rank_at(const std::vector<Place>& places, std::int32_t node, std::int32_t index) {
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    if (places[rank].node == node && places[rank].index == index) return static_cast<int>(rank);
  }
  return -1;
}

/// Between the first ranks alone, then between all. `partner`: -1 where there is none.
Tier measure_tier(const comm::Communicator& world, int partner, bool is_first,
                  std::int64_t ranks_per_node, int num_repeats) {
  const int first = is_first ? partner : -1;
  Tier tier;
  tier.latency_s = Figure::median_of(sample_exchange(world, first, short_bytes, num_repeats));
  const auto rates = [&](int other, double num_ranks) {
    std::vector<double> result;
    for (const double seconds : sample_exchange(world, other, long_bytes, num_repeats)) {
      const double moving = std::max(seconds - tier.latency_s.value, 0.5 * seconds);
      result.push_back(num_ranks * static_cast<double>(long_bytes) / moving);
    }
    return Figure::median_of(result);
  };
  tier.bandwidth_bytes_per_s = rates(first, 1.0);
  tier.node_bandwidth_bytes_per_s = rates(partner, static_cast<double>(ranks_per_node));
  return tier;
}

using Body = std::function<void()>;

/// On `bytes` of f32 in all, as collective_seconds() counts them.
Body collective_body(const comm::Communicator& group, Collective collective, std::int64_t bytes) {
  const auto whole =
      static_cast<std::size_t>(std::max<std::int64_t>(bytes / 4 / group.size(), 1) * group.size());
  const std::size_t part = whole / static_cast<std::size_t>(group.size());
  const auto a = std::make_shared<std::vector<float>>(whole, 1.0f);
  const auto b = std::make_shared<std::vector<float>>(whole, 1.0f);
  switch (collective) {
    case Collective::all_gather:
      return [&group, a, b, part] {
        group.all_gather("calibrate", std::span<const float>(b->data(), part), std::span(*a));
      };
    case Collective::reduce_scatter:
      return [&group, a, b, part] {
        group.reduce_scatter("calibrate", std::span<const float>(*a), std::span(b->data(), part));
      };
    case Collective::all_reduce:
      return [&group, a] { group.all_reduce("calibrate", std::span(*a), comm::ReduceOp::sum); };
    case Collective::all_to_all: break;
  }
  return
      [&group, a, b] { group.all_to_all("calibrate", std::span<const float>(*a), std::span(*b)); };
}

}  // namespace

std::vector<double> slowest(const comm::Communicator& world, std::vector<double> samples) {
  world.all_reduce("slowest rank", std::span(samples), comm::ReduceOp::max);
  return samples;
}

MeasuredTiers measure_tiers(const comm::ProcessGrid& grid, int num_repeats) {
  const std::vector<Place> all = places(grid);
  const Place mine = all[static_cast<std::size_t>(grid.world().rank())];
  const std::int32_t num_nodes = 1 + std::max_element(all.begin(), all.end(), [](Place a, Place b) {
                                       return a.node < b.node;
                                     })->node;
  MeasuredTiers tiers;
  const auto smallest =
      grid.world().all_reduce_value("node size", grid.node().size(), comm::ReduceOp::min);
  if (smallest > 1) {  // neighbours 0 and 1, 2 and 3, ...
    const int partner = rank_at(all, mine.node, mine.index ^ 1);
    tiers.node = measure_tier(grid.world(), partner, mine.index < 2, smallest, num_repeats);
  }
  if (num_nodes > 1) {  // nodes 0 and 1, 2 and 3, ...
    const int partner = rank_at(all, mine.node ^ 1, mine.index);
    tiers.network = measure_tier(grid.world(), partner, mine.index == 0, smallest, num_repeats);
  }
  return tiers;
}

std::vector<CollectiveTime> measure_collectives(const comm::ProcessGrid& grid,
                                                const std::vector<std::int64_t>& sizes_bytes,
                                                int num_repeats) {
  std::vector<CollectiveTime> times;
  const comm::Communicator& world = grid.world();
  const auto measure = [&](const comm::Communicator& group, const char* tier) {
    for (const Collective collective : {Collective::all_gather, Collective::reduce_scatter,
                                        Collective::all_reduce, Collective::all_to_all}) {
      for (const std::int64_t bytes : sizes_bytes) {
        const Body body = collective_body(group, collective, bytes);
        times.push_back(
            {std::string(to_string(collective)), tier, group.size(), static_cast<double>(bytes),
             Figure::median_of(slowest(world, sample_seconds(world, num_repeats, body)))});
      }
    }
  };
  if (grid.node().size() > 1 && grid.node().size() == world.size()) measure(grid.node(), "node");
  if (grid.node().size() < world.size()) measure(world, "network");
  return times;
}

}  // namespace tessera::study
