// SPDX-License-Identifier: Apache-2.0
#include "status.hpp"

#include <new>
#include <string>

namespace tessera::c {
namespace {

// A buffer of fixed size where there is no memory for a message.
thread_local std::string last_message;
thread_local const char* last_text = "";

tessera_status keep(tessera_status status, const char* text) noexcept {
  try {
    last_message = text;
    last_text = last_message.c_str();
  } catch (...) {
    last_text = "out of memory";
  }
  return status;
}

}  // namespace

tessera_status report(std::exception_ptr error) noexcept {
  try {
    std::rethrow_exception(std::move(error));
  } catch (const Error& failure) {
    return keep(static_cast<tessera_status>(failure.kind()), failure.what());
  } catch (const std::bad_alloc&) {
    return keep(TESSERA_ERROR_MEMORY, "out of memory");
  } catch (const std::exception& failure) {
    return keep(TESSERA_ERROR_INTERNAL, failure.what());
  } catch (...) {
    return keep(TESSERA_ERROR_INTERNAL, "an exception of an unknown type");
  }
}

}  // namespace tessera::c

static_assert(TESSERA_ERROR_INTERNAL == static_cast<int>(tessera::ErrorKind::internal));
static_assert(TESSERA_ERROR_USAGE == static_cast<int>(tessera::ErrorKind::usage));

const char* tessera_message(void) { return tessera::c::last_text; }

const char* tessera_status_name(tessera_status status) {
  return status == TESSERA_OK ? "ok" : to_string(static_cast<tessera::ErrorKind>(status));
}
