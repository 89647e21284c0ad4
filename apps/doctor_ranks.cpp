// SPDX-License-Identifier: Apache-2.0
// The doctor's look at the ranks: where they run, on which cores, with how much memory.
#include <fmt/ranges.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "base/host_name.hpp"
#include "comm/device_collectives.hpp"
#include "comm/environment.hpp"
#include "command.hpp"
#include "doctor.hpp"

namespace tessera::apps {
namespace {

constexpr int max_cores = CPU_SETSIZE;
constexpr double mib = 1024.0 * 1024.0;

/// What one rank knows of its surroundings; sent as bytes.
struct RankFacts {
  char host[64] = {};
  char instruction_set[32] = {};
  char device[32] = {};       ///< bus id; empty without one
  bool lacks_device = false;  ///< a build for GPUs that finds none
  char transport[64] = {};    ///< of arrays
  cpu_set_t cores = {};
  std::int64_t num_threads = 1;
  std::int64_t shared_free_bytes = 0;
  std::int64_t shared_bytes = 0;
  HostMemory memory;
};

std::int64_t num_threads_of_rank(const cpu_set_t& cores) {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const int chosen = text != nullptr ? std::atoi(text) : 0;
  return chosen > 0 ? chosen : CPU_COUNT(&cores);
}

RankFacts look_around() {
  RankFacts facts;
  std::strncpy(facts.host, host_name().c_str(), sizeof facts.host - 1);
  std::strncpy(facts.instruction_set, instruction_set().c_str(), sizeof facts.instruction_set - 1);
  std::strncpy(facts.device, own_device().c_str(), sizeof facts.device - 1);
  facts.lacks_device = lacks_device();
  std::strncpy(facts.transport, comm::describe_device_transport().c_str(),
               sizeof facts.transport - 1);
  sched_getaffinity(0, sizeof facts.cores, &facts.cores);
  facts.num_threads = num_threads_of_rank(facts.cores);
  struct statvfs shared {};
  if (statvfs("/dev/shm", &shared) == 0) {
    facts.shared_bytes = static_cast<std::int64_t>(shared.f_blocks * shared.f_frsize);
    facts.shared_free_bytes = static_cast<std::int64_t>(shared.f_bavail * shared.f_frsize);
  }
  facts.memory = host_memory();
  return facts;
}

/// The ranks of one node.
struct Node {
  RankFacts first;
  std::int64_t num_ranks = 0;
  std::int64_t num_threads = 0;         ///< of all its ranks
  std::set<std::string> devices;        ///< of its ranks
  std::int64_t num_without_device = 0;  ///< ranks that want one
  std::bitset<max_cores> cores;         ///< that any of its ranks may use
  std::int64_t num_cores_of_ranks = 0;  ///< summed over its ranks
  bool ranks_are_alike = true;          ///< each may use the same cores
};

void add_rank(Node& node, const RankFacts& facts) {
  if (node.num_ranks == 0) node.first = facts;
  ++node.num_ranks;
  if (facts.device[0] != '\0') node.devices.insert(facts.device);
  node.num_without_device += facts.lacks_device ? 1 : 0;
  node.num_threads += facts.num_threads;
  node.num_cores_of_ranks += CPU_COUNT(&facts.cores);
  node.ranks_are_alike = node.ranks_are_alike && CPU_EQUAL(&node.first.cores, &facts.cores) != 0;
  for (int core = 0; core < max_cores; ++core) {
    if (CPU_ISSET(core, &facts.cores)) node.cores.set(static_cast<std::size_t>(core));
  }
}

std::string binding(const Node& node) {
  const auto num_cores = static_cast<std::int64_t>(node.cores.count());
  if (node.num_ranks == 1) return "one rank, on all cores it may use";
  if (node.num_cores_of_ranks == num_cores) return "bound, each rank to cores of its own";
  return node.ranks_are_alike ? "not bound" : "bound to overlapping cores";
}

void describe_node(const std::string& host, const Node& node, DoctorReport& report) {
  const RankFacts& facts = node.first;
  report.lines.emplace_back(
      "node " + host, fmt::format("{} rank(s), {} core(s), {}; {} thread(s) in all", node.num_ranks,
                                  node.cores.count(), binding(node), node.num_threads));
  report.lines.emplace_back("",
                            fmt::format("memory {} of {} available; /dev/shm {} of {} free",
                                        format_bytes(static_cast<double>(facts.memory.free_bytes)),
                                        format_bytes(static_cast<double>(facts.memory.total_bytes)),
                                        format_bytes(static_cast<double>(facts.shared_free_bytes)),
                                        format_bytes(static_cast<double>(facts.shared_bytes))));
}

void judge_node(const std::string& host, const Node& node, DoctorReport& report) {
  const auto num_cores = static_cast<std::int64_t>(node.cores.count());
  if (node.num_ranks > num_cores) {
    report.warnings.push_back(
        fmt::format("{}: {} ranks share {} core(s) (they wait for each other's time slices); use "
                    "one rank per core",
                    host, node.num_ranks, num_cores));
  } else if (node.num_threads > num_cores) {
    report.warnings.push_back(fmt::format(
        "{}: {} ranks have {} threads on {} core(s) (several times slower); set OMP_NUM_THREADS={}",
        host, node.num_ranks, node.num_threads, num_cores,
        std::max<std::int64_t>(1, num_cores / node.num_ranks)));
  }
  if (node.num_without_device > 0) {
    report.failures.push_back(fmt::format(
        "{}: {} of {} ranks find no GPU, and this Tessera computes on nothing else: see devices, "
        "or use a build without TESSERA_CUDA",
        host, node.num_without_device, node.num_ranks));
  }
  const auto num_devices = static_cast<std::int64_t>(node.devices.size());
  if (num_devices > 0 && node.num_ranks > num_devices) {
    report.warnings.push_back(
        fmt::format("{}: {} ranks share {} GPU(s) (they take turns, and NCCL refuses two ranks on "
                    "one); use one rank per GPU",
                    host, node.num_ranks, num_devices));
  }
  if (node.num_ranks > 1 && static_cast<double>(node.first.shared_free_bytes) <
                                32.0 * mib * static_cast<double>(node.num_ranks)) {
    report.warnings.push_back(fmt::format(
        "{}: /dev/shm has {} free for {} ranks (MPI exchanges data through it; 32 MiB per rank are "
        "safe); "
        "enlarge it, in containers by --shm-size",
        host, format_bytes(static_cast<double>(node.first.shared_free_bytes)), node.num_ranks));
  }
}

void judge_job(const comm::Communicator& world, const std::vector<RankFacts>& all,
               DoctorReport& report) {
  const int launched = comm::launcher_size();
  if (launched > 1 && world.size() == 1) {
    report.failures.push_back(
        fmt::format("the launcher started {} processes, but MPI connects only 1 of them; use the "
                    "mpirun or srun of the MPI "
                    "that Tessera was built with",
                    launched));
  }
  const auto alike = [&](const auto& text) {
    return std::all_of(all.begin(), all.end(), [&](const RankFacts& facts) {
      return std::strcmp(text(facts), text(all.front())) == 0;
    });
  };
  if (!alike([](const RankFacts& facts) { return facts.transport; })) {
    std::set<std::string> transports;
    for (const RankFacts& facts : all) transports.insert(facts.transport);
    report.failures.push_back(fmt::format(
        "arrays would travel by {} (ranks do not understand each other); install the same on all "
        "nodes, or choose one by TESSERA_COLLECTIVES",
        fmt::join(transports, " on some ranks and by ")));
  }
  if (!alike([](const RankFacts& facts) { return facts.instruction_set; })) {
    report.warnings.push_back(
        "the nodes' processors differ (the slowest sets the pace, and results may differ in the "
        "last bits from "
        "run to run)");
  }
}

}  // namespace

void examine_ranks(const comm::Communicator& world, DoctorReport& report) {
  const RankFacts mine = look_around();
  std::vector<RankFacts> all(static_cast<std::size_t>(world.size()));
  const std::span<const std::byte> sent = std::as_bytes(std::span(&mine, 1));
  const std::span<std::byte> received = std::as_writable_bytes(std::span(all));
  world.all_gather("doctor.facts", sent, received);

  std::map<std::string, Node> nodes;
  for (const RankFacts& facts : all) add_rank(nodes[facts.host], facts);
  const char* threads = std::getenv("OMP_NUM_THREADS");
  report.lines.emplace_back(
      "ranks", fmt::format("{} on {} node(s), OMP_NUM_THREADS {}", world.size(), nodes.size(),
                           threads != nullptr ? threads : "not set"));
  for (const auto& [host, node] : nodes) describe_node(host, node, report);
  for (const auto& [host, node] : nodes) judge_node(host, node, report);
  judge_job(world, all, report);
}

}  // namespace tessera::apps
