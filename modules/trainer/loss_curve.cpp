// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/loss_curve.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/log.hpp"

namespace tessera::trainer {
namespace {

struct Curves {
  std::string training;    ///< lines "step loss"
  std::string evaluation;  ///< lines "step eval_loss"
};

Curves read_curves(const std::filesystem::path& metrics_path) {
  Curves curves;
  std::ifstream file(metrics_path);
  std::string line;
  const auto append = [](std::string& to, const nlohmann::json& json, const char* key) {
    if (!json.contains(key) || !json[key].is_number()) return;  // null where the loss was NaN
    to += fmt::format("{} {}\n", json["step"].get<std::int64_t>(), json[key].get<double>());
  };
  while (std::getline(file, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    append(curves.training, json, "loss");
    append(curves.evaluation, json, "eval_loss");
  }
  return curves;
}

bool is_on_path(const char* program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::string quoted(const std::filesystem::path& path) {
  std::string text = "'";
  for (const char c : path.string()) text += c == '\'' ? std::string("''") : std::string(1, c);
  return text + "'";
}

std::string gnuplot_script(const Curves& curves, const std::filesystem::path& output) {
  std::string script = "$training << END_OF_DATA\n" + curves.training + "END_OF_DATA\n";
  std::string plot =
      "plot $training using 1:2 with lines linewidth 2 linecolor rgb '#2060a0' title 'training'";
  if (!curves.evaluation.empty()) {
    script += "$evaluation << END_OF_DATA\n" + curves.evaluation + "END_OF_DATA\n";
    plot +=
        ", $evaluation using 1:2 with linespoints linewidth 2 linecolor rgb '#c05020' title "
        "'evaluation'";
  }
  script +=
      "if (strstrt(GPVAL_TERMINALS, ' pngcairo ') > 0) set terminal pngcairo size 1000,600\n"
      "if (strstrt(GPVAL_TERMINALS, ' pngcairo ') == 0) set terminal png size 1000,600\n"
      "set output " +
      quoted(output) +
      "\n"
      "set xlabel 'step'\nset ylabel 'loss [nat per token]'\nset grid\nset key top right\n";
  return script + plot + "\n";
}

/// Feeds `script` to gnuplot; true if it ended well. Its own messages are not shown.
bool run_gnuplot(const std::string& script) {
  // A gnuplot that ends early would kill this rank by SIGPIPE, and with it the whole job.
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  std::FILE* pipe = ::popen("exec gnuplot >/dev/null 2>&1", "w");
  int status = -1;
  if (pipe != nullptr) {
    std::fwrite(script.data(), 1, script.size(), pipe);
    status = ::pclose(pipe);
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

bool draw_loss_curve(const std::filesystem::path& metrics_path,
                     const std::filesystem::path& png_path) {
  const Curves curves = read_curves(metrics_path);
  if (curves.training.empty()) {
    log_warning("no loss curve: {} has no losses", metrics_path.string());
    return false;
  }
  if (!is_on_path("gnuplot")) {
    log_warning("no loss curve: gnuplot is not installed (package gnuplot-nox)");
    return false;
  }
  const std::filesystem::path temporary = png_path.string() + ".tmp";
  std::error_code error;
  const bool drawn = run_gnuplot(gnuplot_script(curves, temporary)) &&
                     std::filesystem::file_size(temporary, error) > 0 && !error;
  if (drawn) std::filesystem::rename(temporary, png_path, error);
  if (drawn && !error) return true;
  std::filesystem::remove(temporary, error);
  log_warning("no loss curve: gnuplot could not draw {}", png_path.string());
  return false;
}

}  // namespace tessera::trainer
