// SPDX-License-Identifier: Apache-2.0
// Messages for people, on stderr (results go to stdout). Rank 0 speaks for all; a rank that has
// something of its own to say uses log_rank. Library users install a callback instead.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>

namespace tessera {

enum class LogLevel { debug, info, warning, error };

/// Who receives messages: (level, text without newline). Default: one line on stderr.
using LogSink = std::function<void(LogLevel, const std::string&)>;

/// Replaces the sink of this process; an empty one restores the default. local.
void set_log_sink(LogSink sink);
/// Messages below `level` are dropped; default info. local.
void set_log_level(LogLevel level);
/// Which world rank this process is, and whether it speaks for all (rank 0). Set by
/// comm::Environment.
void set_log_rank(int rank, int num_ranks);

/// One message from this rank, prefixed with `[rank r]` when there are several. local.
void log_rank_message(LogLevel level, const std::string& text);
/// One message that is the same on all ranks, printed by rank 0 alone. local.
void log_message(LogLevel level, const std::string& text);

template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::warning, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_rank(LogLevel level, fmt::format_string<Args...> text, Args&&... args) {
  log_rank_message(level, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace tessera
