// SPDX-License-Identifier: Apache-2.0
// A link between two network namespaces with latency and rate, for kernels without netem: a tun
// device on each side, and this process carries packets between them, each when it is due. Usable
// from 200 us and up to 1 Gbit/s; it needs a processor to itself. Runs until it is killed.
// Usage: wire NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B LATENCY_US RATE_MBIT      (addresses:
// /24)
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

constexpr std::size_t most_queued = 2048, packet_bytes = 9000;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void die(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

void enter(int space) {
  if (setns(space, CLONE_NEWNET) != 0) die("setns");
}

/// Makes wire0 in a namespace and gives it an address; the process stays where it was.
int open_end(const std::string& space, const std::string& address) {
  const int home = open("/proc/self/ns/net", O_RDONLY);
  const int there = open(("/run/netns/" + space).c_str(), O_RDONLY);
  if (home < 0 || there < 0) die("namespace " + space);
  enter(there);
  const int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (device < 0) die("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, "wire0", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(device, TUNSETIFF, &request) != 0) die("TUNSETIFF");
  const std::string configure = "ip addr add " + address +
                                "/24 dev wire0 && ip link set wire0 mtu " +
                                std::to_string(packet_bytes) + " txqueuelen 2000 up";
  if (std::system(configure.c_str()) != 0) die("ip");
  enter(home);
  close(there);
  close(home);
  return device;
}

struct Packet {
  double due_s;
  std::vector<char> data;
};

/// One direction.
class Way {
 public:
  Way(int from, int to, double latency_s, double bytes_per_s)
      : from_(from), to_(to), latency_s_(latency_s), bytes_per_s_(bytes_per_s) {}

  /// Packets that wait in front of the slow part are left in the device's queue.
  bool has_room() const { return queue_.size() < most_queued; }
  int from() const { return from_; }

  void take() {
    while (has_room()) {
      std::vector<char> data(packet_bytes);
      const ssize_t size = read(from_, data.data(), data.size());
      if (size <= 0) return;
      data.resize(static_cast<std::size_t>(size));
      free_s_ = std::max(free_s_, now_s()) + static_cast<double>(size) / bytes_per_s_;
      queue_.push_back({free_s_ + latency_s_, std::move(data)});
    }
  }
  /// Hands over what is due; when the next one is.
  double give(double next_s) {
    while (!queue_.empty() && queue_.front().due_s <= now_s()) {
      // A full receiver drops the packet, as a wire would; TCP sends it again.
      if (write(to_, queue_.front().data.data(), queue_.front().data.size()) < 0) ++num_dropped_;
      queue_.pop_front();
    }
    return queue_.empty() ? next_s : std::min(next_s, queue_.front().due_s);
  }

 private:
  int from_, to_;
  double latency_s_, bytes_per_s_;
  double free_s_ = 0.0;
  std::deque<Packet> queue_;
  long num_dropped_ = 0;
};

void sleep_until(Way& there, Way& back, double until_s) {
  pollfd ends[2] = {{there.from(), static_cast<short>(there.has_room() ? POLLIN : 0), 0},
                    {back.from(), static_cast<short>(back.has_room() ? POLLIN : 0), 0}};
  const double left_s = std::max(until_s - now_s(), 0.0);
  const timespec wait{
      static_cast<time_t>(left_s),
      static_cast<long>((left_s - static_cast<double>(static_cast<time_t>(left_s))) * 1e9)};
  ppoll(ends, 2, &wait, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: wire NS_A ADDR_A NS_B ADDR_B LATENCY_US RATE_MBIT\n");
    return 2;
  }
  const double latency_s = 1e-6 * std::atof(argv[5]), bytes_per_s = 1e6 / 8.0 * std::atof(argv[6]);
  if (latency_s < 0.0 || bytes_per_s <= 0.0) return 2;
  const int a = open_end(argv[1], argv[2]), b = open_end(argv[3], argv[4]);
  Way there(a, b, latency_s, bytes_per_s), back(b, a, latency_s, bytes_per_s);
  prctl(PR_SET_TIMERSLACK, 1000UL);  // ns: packets are due to the microsecond
  while (true) {
    there.take();
    back.take();
    sleep_until(there, back, back.give(there.give(now_s() + 1.0)));
  }
}
