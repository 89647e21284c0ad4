// SPDX-License-Identifier: Apache-2.0
// The doctor's look at the GPUs.
#include <algorithm>

#include "comm/devices.hpp"
#include "command.hpp"
#include "doctor.hpp"

namespace tessera::apps {
namespace {

std::string describe(const comm::Device& device) {
  return fmt::format("{}, {}, compute capability {}.{}", device.name,
                     format_bytes(static_cast<double>(device.total_bytes)), device.major,
                     device.minor);
}

void describe_devices(const comm::DeviceFacts& facts, DoctorReport& report) {
  report.lines.emplace_back(
      "devices", fmt::format("{} x {}", facts.devices.size(), describe(facts.devices.front())));
  report.lines.emplace_back("CUDA", fmt::format("{} in this program, driver for up to {}",
                                                comm::cuda_version_text(facts.runtime_version),
                                                comm::cuda_version_text(facts.driver_version)));
  if (const auto memory = comm::device_memory()) {
    report.lines.emplace_back("", fmt::format("memory of this rank's device: {} of {} free",
                                              format_bytes(double(memory->free_bytes)),
                                              format_bytes(double(memory->total_bytes))));
  }
}

void judge_devices(const comm::DeviceFacts& facts, DoctorReport& report) {
  const auto is_first = [&](const comm::Device& device) {
    return device.name == facts.devices.front().name;
  };
  if (!std::all_of(facts.devices.begin(), facts.devices.end(), is_first)) {
    report.warnings.push_back(
        "the devices of this node differ (the slowest sets the pace); choose alike ones by "
        "CUDA_VISIBLE_DEVICES");
  }
  if (facts.driver_version < facts.runtime_version) {
    report.warnings.push_back(fmt::format(
        "the driver knows CUDA {} at most and this program has {} (calls that the driver lacks "
        "fail while it runs); update the driver, or build with an older CUDA toolkit",
        comm::cuda_version_text(facts.driver_version),
        comm::cuda_version_text(facts.runtime_version)));
  }
}

}  // namespace

std::string own_device() {
  const comm::DeviceFacts facts = comm::find_devices();
  const auto number = static_cast<std::size_t>(comm::chosen_device().value_or(0));
  return number < facts.devices.size() ? facts.devices[number].bus_id : std::string();
}

bool lacks_device() {
  const comm::DeviceFacts facts = comm::find_devices();
  return facts.built_for_devices && facts.devices.empty();
}

void examine_devices(DoctorReport& report) {
  const comm::DeviceFacts facts = comm::find_devices();
  if (facts.devices.empty()) {
    report.lines.emplace_back("devices", "none: " + facts.problem);
  } else {
    describe_devices(facts, report);
    judge_devices(facts, report);
  }
  const std::optional<bool> knows = comm::mpi_knows_device_memory();
  report.lines.emplace_back(
      "", fmt::format("MPI {} pointers to device memory", !knows ? "does not tell whether it takes"
                                                          : *knows ? "takes"
                                                                   : "does not take"));
}

}  // namespace tessera::apps
