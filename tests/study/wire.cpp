// SPDX-License-Identifier: Apache-2.0
// A link with latency and rate between two network namespaces, for kernels without netem: a tun
// device "wire0" in each, and this process carries the packets. As root; runs until it is killed.
//   wire NAMESPACE ADDRESS NAMESPACE ADDRESS DELAY_US RATE_MBIT
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::size_t max_packets = 1024;  // on the way; the sender's device keeps the others
constexpr std::size_t max_bytes = 9000;

[[noreturn]] void fail(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

/// The device in that namespace, up and with its address.
int open_end(const std::string& name, const std::string& address) {
  const int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  const int there = open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC);
  if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) != 0) fail("namespace " + name);
  const int end = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  std::strcpy(request.ifr_name, "wire0");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (end < 0 || ioctl(end, TUNSETIFF, &request) != 0) fail("/dev/net/tun");
  // A tun device does not hold its sender back as a network card does: without the limit TCP would
  // keep 4 MB on the way, and a short message would wait behind them for 30 ms.
  const std::string up = "ip address add " + address + "/24 dev wire0 && ip link set wire0 mtu " +
                         std::to_string(max_bytes) +
                         " up && sysctl -qw net.ipv4.tcp_wmem='4096 65536 262144' "
                         "net.ipv4.tcp_rmem='4096 131072 524288'";
  if (std::system(up.c_str()) != 0) std::exit(1);
  setns(home, CLONE_NEWNET);
  close(there);
  close(home);
  return end;
}

/// One way of the link: packets leave one after the other at its rate and arrive a delay later.
class Way {
 public:
  Way(int from, int to, Seconds delay, double bytes_per_s)
      : from_(from), to_(to), delay_(delay), bytes_per_s_(bytes_per_s) {}

  void accept() {
    std::array<char, max_bytes> buffer;
    while (on_the_way_.size() < max_packets) {
      const ssize_t count = read(from_, buffer.data(), buffer.size());
      if (count <= 0) return;
      const Seconds sending(static_cast<double>(count) / bytes_per_s_);
      free_ = std::max(free_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(sending);
      on_the_way_.push_back({free_ + std::chrono::duration_cast<Clock::duration>(delay_),
                             {buffer.begin(), buffer.begin() + count}});
    }
  }

  void deliver() {
    while (!on_the_way_.empty() && on_the_way_.front().due <= Clock::now()) {
      const std::vector<char>& bytes = on_the_way_.front().bytes;
      if (write(to_, bytes.data(), bytes.size()) < 0) std::perror("a packet is lost");
      on_the_way_.pop_front();
    }
  }

  pollfd waits_for() const {
    const bool has_room = on_the_way_.size() < max_packets;
    return {from_, static_cast<short>(has_room ? POLLIN : 0), 0};
  }
  Clock::time_point next(Clock::time_point latest) const {
    return on_the_way_.empty() ? latest : std::min(latest, on_the_way_.front().due);
  }

 private:
  struct Packet {
    Clock::time_point due;
    std::vector<char> bytes;
  };
  int from_, to_;
  Seconds delay_;
  double bytes_per_s_;
  Clock::time_point free_;
  std::deque<Packet> on_the_way_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: wire NAMESPACE ADDRESS NAMESPACE ADDRESS DELAY_US RATE_MBIT\n");
    return 2;
  }
  const int a = open_end(argv[1], argv[2]), b = open_end(argv[3], argv[4]);
  const Seconds delay(std::atof(argv[5]) * 1e-6);
  const double bytes_per_s = std::atof(argv[6]) * 1e6 / 8.0;
  std::array<Way, 2> ways{Way(a, b, delay, bytes_per_s), Way(b, a, delay, bytes_per_s)};
  prctl(PR_SET_TIMERSLACK, 1000UL);  // ns: waits end when they should
  for (;;) {
    for (Way& way : ways) {
      way.accept();
      way.deliver();
    }
    const auto now = Clock::now();
    const auto next = ways[0].next(ways[1].next(now + std::chrono::seconds(1)));
    if (next <= now) continue;
    const auto wait = std::chrono::duration_cast<std::chrono::nanoseconds>(next - now).count();
    const timespec timeout{wait / 1'000'000'000, wait % 1'000'000'000};
    std::array<pollfd, 2> ends{ways[0].waits_for(), ways[1].waits_for()};
    ppoll(ends.data(), ends.size(), &timeout, nullptr);
  }
}
