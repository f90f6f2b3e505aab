// run_team's rules for exceptions; prints nothing, aborts on the first broken one.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "threads.h"

using atrous::run_team;
using atrous::Team;

namespace {

thread_local long allocations_left = -1;  // on this thread until one fails; -1 never fails

void require(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// The sum of 0 ... 9999 by a team, and how many ranks it had.
void check_pool(int threads) {
  std::atomic<long> sum{0};
  int size = 0;
  run_team(threads, [&](Team& team, int rank) {
    if (rank == 0) size = team.size();
    team.share(rank, 10000, 7, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) sum += static_cast<long>(i);
    });
  });
  require(sum == 49995000, "a team computes every chunk once");
  require(size == threads, "helpers return to the pool");
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// Rank `thrower` throws before phase `when` of 5, outside of share and alone.
void check_throw_between_phases(int threads, int thrower, int when) {
  std::atomic<int> later{0};
  const std::string message = message_of([&] {
    run_team(threads, [&](Team& team, int rank) {
      for (int phase = 0; phase < 5; ++phase) {
        if (phase == when && (rank == thrower || thrower < 0)) throw std::runtime_error("between phases");
        team.share(rank, 100, 1, [&](std::size_t, std::size_t) { later += phase > when ? 1 : 0; });
      }
    });
  });
  require(message == "between phases", "run_team rethrows what a body throws outside of its phases");
  require(later == 0, "phases after the failing one are skipped");
  check_pool(threads);
}

void check_throw_inside_phase(int threads) {
  for (const bool alone : {false, true}) {
    bool ran = false;
    const std::string message = message_of([&] {
      run_team(threads, [&](Team& team, int rank) {
        if (alone) {
          team.alone(rank, [] { throw std::runtime_error("inside"); });
        } else {
          team.share(rank, 100, 1, [](std::size_t, std::size_t) { throw std::runtime_error("inside"); });
        }
        require(team.failed(), "every rank sees the failure after the barrier");
        team.alone(rank, [&] { ran = true; });
      });
    });
    require(message == "inside" && !ran, "run_team rethrows what a phase throws");
    check_pool(threads);
  }
}

// run_team itself runs out of memory at its n-th allocation.
void check_no_memory(int threads) {
  for (long n = 0; n < 40; ++n) {
    std::atomic<int> ranks{0};
    try {
      const std::function<void(Team&, int)> body = [&](Team& team, int rank) {
        ++ranks;
        team.share(rank, 100, 1, [](std::size_t, std::size_t) {});
      };
      allocations_left = n;
      run_team(threads, body);
      require(ranks > 0, "a team has at least its caller");
    } catch (const std::bad_alloc&) {
      require(ranks == 0, "run_team throws before any rank has begun");
    }
    allocations_left = -1;
    check_pool(threads);
  }
}

}  // namespace

void* operator new(std::size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
  check_no_memory(4);
  for (int round = 0; round < 50; ++round) {
    for (int thrower = -1; thrower < 4; ++thrower) check_throw_between_phases(4, thrower, round % 5);
    check_throw_inside_phase(4);
    check_throw_inside_phase(1);
    check_throw_between_phases(1, 0, round % 5);
  }
  return 0;
}
