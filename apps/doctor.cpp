// SPDX-License-Identifier: Apache-2.0
// `tessera doctor`: what the program stands on here, and what is wrong with it.
#include "doctor.hpp"

#include <cstdio>
#include <memory>

#include "base/version.hpp"
#include "comm/device_collectives.hpp"
#include "command.hpp"

namespace tessera::apps {
namespace {

constexpr int unusable = 3;  // the exit code of bad input and files

void print(const DoctorReport& report) {
  for (const auto& [subject, text] : report.lines) fmt::print("{:<12} {}\n", subject, text);
  for (const std::string& text : report.warnings) fmt::print("warning      {}\n", text);
  for (const std::string& text : report.failures) fmt::print("FAILURE      {}\n", text);
  if (report.failures.empty()) {
    fmt::print("{}\n", report.warnings.empty() ? "All is well."
                                               : "Tessera works here, with the warnings above.");
  } else {
    fmt::print("Tessera cannot work here: see the failures above.\n");
  }
  std::fflush(stdout);
}

/// A grid may have communicators of device memory: it is made where nothing speaks against it.
std::string examine_grid(const comm::Communicator& world, const GridOptions& options,
                         const DoctorReport& report) {
  const std::int32_t fails = report.failures.empty() ? 0 : 1;
  if (world.all_reduce_value("doctor.failures", fails, comm::ReduceOp::max) != 0) {
    return "not tried, see the failures";
  }
  return make_grid(options).describe();
}

int run(const GridOptions& options) {
  const comm::Communicator world(MPI_COMM_WORLD, "doctor");
  DoctorReport report;
  report.lines.emplace_back("Tessera", version_string());
  report.lines.emplace_back("built with", dependency_versions());
  examine_libraries(report);
  examine_devices(report);
  examine_ranks(world, report);
  report.lines.emplace_back("arrays", "travel by " + comm::describe_device_transport());
  if (const std::string misfit = comm::device_transport_misfit(); !misfit.empty()) {
    report.failures.push_back(misfit);
  }
  report.lines.emplace_back("grid", examine_grid(world, options, report));
  if (world.rank() == 0) print(report);
  return report.failures.empty() ? 0 : unusable;
}

}  // namespace

Command add_doctor(CLI::App& program) {
  const auto options = std::make_shared<GridOptions>();
  CLI::App* app =
      add_command(program, "doctor", "Show what Tessera stands on here, and what is wrong with it.",
                  "  tessera doctor\n"
                  "  mpirun -n 4 tessera doctor --expert 2\n"
                  "  srun tessera doctor --expert 8\n"
                  "It ends with exit code 3 if Tessera cannot work here, else 0.");
  add_grid_options(*app, *options);
  return {app, [options] { return run(*options); }, [] { return false; }};
}

}  // namespace tessera::apps
