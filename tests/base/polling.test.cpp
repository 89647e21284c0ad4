// SPDX-License-Identifier: Apache-2.0
#include "base/polling.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <thread>

using namespace tessera;
using namespace std::chrono_literals;

TEST_CASE("A poll is called now and then until it returns false, by the thread that gave it") {
  int num_polls = 0;
  poll_until_false([&num_polls] { return ++num_polls < 3; });
  std::this_thread::sleep_for(1ms);
  std::thread(poll_now_and_then).join();
  CHECK(num_polls == 0);
  poll_now_and_then();
  CHECK(num_polls == 1);
  const auto end = std::chrono::steady_clock::now() + 60s;
  std::int64_t num_asked = 0;
  while (num_polls < 3 && std::chrono::steady_clock::now() < end) {
    poll_now_and_then();
    ++num_asked;
  }
  CHECK(num_asked > num_polls);  // else there is no time between polls
  std::this_thread::sleep_for(1ms);
  poll_now_and_then();
  CHECK(num_polls == 3);
}

TEST_CASE("What is done is dropped where polls are given and nobody asks") {
  const auto token = std::make_shared<int>();
  poll_until_false([token] { return false; });
  CHECK(token.use_count() == 2);
  std::this_thread::sleep_for(1ms);
  poll_until_false([] { return false; });
  CHECK(token.use_count() == 1);
}
