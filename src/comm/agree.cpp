// SPDX-License-Identifier: Apache-2.0
#include "comm/agree.hpp"

#include <filesystem>
#include <new>
#include <string>

namespace tessera::comm {
namespace {

struct Failure {
  ErrorKind kind = ErrorKind::internal;
  std::string message;
};

Failure failure_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return {e.kind(), e.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::memory, "out of memory"};
  } catch (const std::filesystem::filesystem_error& e) {
    return {ErrorKind::file, e.what()};
  } catch (const std::exception& e) {
    return {ErrorKind::internal, e.what()};
  } catch (...) {
    return {ErrorKind::internal, "an exception of an unknown type"};
  }
}

}  // namespace

void agree(const Communicator& communicator, std::string_view phase,
           std::exception_ptr local_error) {
  const std::int32_t no_rank = communicator.size();
  const std::int32_t lowest = communicator.all_reduce_value<std::int32_t>(
      phase, local_error ? communicator.rank() : no_rank, ReduceOp::min);
  if (lowest == no_rank) return;

  Failure failure;
  if (lowest == communicator.rank()) failure = failure_of(local_error);
  auto kind = static_cast<std::int32_t>(failure.kind);
  communicator.broadcast(phase, std::span<std::int32_t>(&kind, 1), lowest);
  const std::string message = communicator.broadcast_string(phase, failure.message, lowest);

  Error error(static_cast<ErrorKind>(kind),
              fmt::format("{}: {} [rank {} of {}]", phase, message, lowest, communicator.size()));
  error.set_failing_rank(lowest);
  throw error;
}

}  // namespace tessera::comm
