// The pool behind run_team: it creates threads on demand, they sleep between jobs, and a forked child starts a new
// pool.
#include "threads.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "fork.h"
#include "placement.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace atrous {
namespace {

constexpr int kSpins = 3000;
constexpr auto kYieldTime = std::chrono::milliseconds(2);
constexpr std::size_t kMostWorkers = 255;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Treats subnormal numbers as zero: they cost a hundred cycles each, and a softmax loses them anyway.
class FlushSubnormals {
 public:
#if defined(__x86_64__) || defined(__i386__)
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (std::uint64_t{1} << 24)));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  std::uint64_t saved_;
#else
  FlushSubnormals() {}
#endif
};

// One call of run_team.
struct Job {
  Job(int threads, const std::function<void(Team&, int)>& body) : team(threads), body(body) {}

  void run(int rank) noexcept {
    const FlushSubnormals flush;
    try {
      body(team, rank);
    } catch (...) {
      team.leave();
    }
  }

  Team team;
  const std::function<void(Team&, int)>& body;
  std::optional<Placement> placement;
  std::mutex mutex;
  std::condition_variable done;
  std::size_t running = 0;
};

struct Worker {
  std::thread::native_handle_type thread;
  std::mutex mutex;
  std::condition_variable wake;
  Job* job = nullptr;
  int rank = 0;
};

class Pool {
 public:
  Pool() { idle_.reserve(kMostWorkers); }

  // Returns at most `wanted` sleeping or new threads, still waiting for start(). Throws before it takes any.
  std::vector<Worker*> reserve(std::size_t wanted) {
    std::vector<Worker*> team;
    team.reserve(wanted);
    std::lock_guard<std::mutex> lock(mutex_);
    while (team.size() < wanted && !idle_.empty()) {
      team.push_back(idle_.back());
      idle_.pop_back();
    }
    while (team.size() < wanted && created_ < kMostWorkers) {
      try {
        auto worker = std::make_unique<Worker>();
        std::thread thread([this, raw = worker.get()] { serve(raw); });
        worker->thread = thread.native_handle();
        thread.detach();
        team.push_back(worker.release());
        ++created_;
      } catch (const std::exception&) {
        break;  // no memory or no more threads: run with fewer
      }
    }
    return team;
  }

  static void start(Worker* worker, Job* job, int rank) noexcept {
    {
      std::lock_guard<std::mutex> lock(worker->mutex);
      worker->job = job;
      worker->rank = rank;
    }
    worker->wake.notify_one();
  }

 private:
  void serve(Worker* worker) noexcept {
    for (;;) {
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(worker->mutex);
        worker->wake.wait(lock, [&] { return worker->job != nullptr; });
        job = std::exchange(worker->job, nullptr);
      }
      job->placement->restore_self();
      job->run(worker->rank);
      {
        std::lock_guard<std::mutex> lock(job->mutex);
        if (--job->running == 0) job->done.notify_one();
      }
      std::lock_guard<std::mutex> lock(mutex_);
      idle_.push_back(worker);
    }
  }

  std::mutex mutex_;
  std::vector<Worker*> idle_;
  std::size_t created_ = 0;
};

// Never destroyed: its threads sleep until the process ends.
Pool* pool = nullptr;

Pool& shared_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    at_fork(nullptr, nullptr, [] { pool = new Pool; });  // a child owns none of its parent's threads
  });
  return *pool;
}

}  // namespace

bool Team::arrive() noexcept {
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 != size_) return false;
  arrived_.store(absent_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  for (Cursor& cursor : cursors_) cursor.next.store(0, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    failed_ = error_ != nullptr;
    generation_.fetch_add(1, std::memory_order_release);
  }
  if (size_ > 1) wake_.notify_all();
  return true;
}

void Team::barrier() {
  const unsigned generation = generation_.load(std::memory_order_acquire);
  const auto open = [&] { return generation_.load(std::memory_order_acquire) != generation; };
  if (arrive()) return;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (open()) return;
    pause_briefly();
  }
  // Waking up takes long (see Placement): yield first, for as long as the short serial phases take.
  const auto deadline = std::chrono::steady_clock::now() + kYieldTime;
  while (std::chrono::steady_clock::now() < deadline) {
    if (open()) return;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, open);
}

void Team::fail() noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_) error_ = std::current_exception();
}

void Team::leave() noexcept {
  fail();
  absent_.fetch_add(1, std::memory_order_relaxed);  // counts as arrived at every later barrier
  arrive();
}

void Team::rethrow() {
  if (error_) std::rethrow_exception(error_);
}

void run_team(int threads, const std::function<void(Team&, int)>& body) {
  Job job(std::max(threads, 1), body);
  std::vector<Worker*> helpers;
  if (threads > 1) helpers = shared_pool().reserve(threads - 1);
  // From here on nothing may throw: helpers use this stack frame.
  job.team.assemble(static_cast<int>(helpers.size()) + 1);
  job.running = helpers.size();
  if (!helpers.empty()) job.placement.emplace();
  int rank = 0;
  for (Worker* const helper : helpers) {
    job.placement->keep_away(helper->thread);
    Pool::start(helper, &job, ++rank);
  }
  job.run(0);
  {
    std::unique_lock<std::mutex> lock(job.mutex);
    job.done.wait(lock, [&] { return job.running == 0; });
  }
  job.team.rethrow();
}

}  // namespace atrous
