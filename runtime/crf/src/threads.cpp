// The pool behind run_team: threads are created on demand, sleep between jobs, and are forgotten in a forked child.
#include "threads.h"

#include <chrono>
#include <optional>
#include <thread>

#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace atrous {
namespace {

constexpr int kSpins = 3000;
constexpr auto kPatience = std::chrono::milliseconds(2);
constexpr std::size_t kMostWorkers = 255;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Subnormal numbers cost a hundred cycles each and carry nothing a softmax keeps: they count as zero meanwhile.
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
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1UL << 24)));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long saved_;
#endif
};

// Linux may wake a thread on the very processor of its waker, though another is idle, and leave both there for
// milliseconds: as long as a whole phase takes. So a worker is kept off that processor until it runs.
#ifdef __linux__
class Placement {
 public:
  Placement() {
    known_ = sched_getaffinity(0, sizeof allowed_, &allowed_) == 0 && CPU_COUNT(&allowed_) > 1;
    const int own = sched_getcpu();
    known_ = known_ && own >= 0 && own < CPU_SETSIZE && CPU_ISSET(own, &allowed_);
    elsewhere_ = allowed_;
    if (known_) CPU_CLR(own, &elsewhere_);
  }
  void keep_away(pthread_t thread) const {
    if (known_) pthread_setaffinity_np(thread, sizeof elsewhere_, &elsewhere_);
  }
  void free_self() const {
    if (known_) pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
  }

 private:
  cpu_set_t allowed_, elsewhere_;
  bool known_;
};
#else
class Placement {
 public:
  void keep_away(pthread_t) const {}
  void free_self() const {}
};
#endif

struct Worker {
  pthread_t thread;
  std::mutex mutex;
  std::condition_variable wake;
  std::function<void()> job;
};

class Pool {
 public:
  // Hands `job` to at most `wanted` sleeping or new threads; returns them, still waiting for start().
  std::vector<Worker*> reserve(std::size_t wanted) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Worker*> team;
    while (team.size() < wanted && !idle_.empty()) {
      team.push_back(idle_.back());
      idle_.pop_back();
    }
    while (team.size() < wanted && created_ < kMostWorkers) {
      auto worker = std::make_unique<Worker>();
      Worker* const raw = worker.get();
      try {
        std::thread thread([this, raw] { serve(raw); });
        raw->thread = thread.native_handle();
        thread.detach();
      } catch (const std::system_error&) {
        break;  // the system allows no more threads: go on with those there are
      }
      worker.release();
      ++created_;
      team.push_back(raw);
    }
    return team;
  }

  static void start(Worker* worker, std::function<void()> job) {
    {
      std::lock_guard<std::mutex> lock(worker->mutex);
      worker->job = std::move(job);
    }
    worker->wake.notify_one();
  }

 private:
  void serve(Worker* worker) {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock<std::mutex> lock(worker->mutex);
        worker->wake.wait(lock, [&] { return static_cast<bool>(worker->job); });
        job = std::move(worker->job);
        worker->job = nullptr;
      }
      job();
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
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });  // a child owns none of its parent's threads
  });
  return *pool;
}

}  // namespace

Team::Team(int size) : size_(size), cursors_(static_cast<std::size_t>(size)) {}

void Team::barrier() {
  const unsigned generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    for (Cursor& cursor : cursors_) cursor.next.store(0, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      generation_.store(generation + 1, std::memory_order_release);
    }
    if (size_ > 1) wake_.notify_all();
    return;
  }
  for (int spin = 0; spin < kSpins; ++spin) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    pause_briefly();
  }
  // Sleeping costs a late waking, see Placement: give way first, for as long as the short serial phases take.
  const auto tired = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < tired) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != generation; });
}

void Team::fail(std::exception_ptr error) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_) error_ = std::move(error);
  failed_.store(true, std::memory_order_relaxed);
}

void Team::rethrow() {
  if (error_) std::rethrow_exception(error_);
}

void run_team(int threads, const std::function<void(Team&, int)>& body) {
  std::vector<Worker*> helpers;
  if (threads > 1) helpers = shared_pool().reserve(static_cast<std::size_t>(threads - 1));

  Team team(static_cast<int>(helpers.size()) + 1);
  auto guarded = [&](int rank) {
    FlushSubnormals flush;
    body(team, rank);
  };

  std::mutex mutex;
  std::condition_variable done;
  std::size_t running = helpers.size();
  const auto placement = helpers.empty() ? std::nullopt : std::make_optional<Placement>();
  for (std::size_t i = 0; i < helpers.size(); ++i) {
    placement->keep_away(helpers[i]->thread);
    Pool::start(helpers[i], [&, i] {
      placement->free_self();
      guarded(static_cast<int>(i) + 1);
      std::lock_guard<std::mutex> lock(mutex);
      if (--running == 0) done.notify_one();
    });
  }
  guarded(0);
  {
    std::unique_lock<std::mutex> lock(mutex);
    done.wait(lock, [&] { return running == 0; });
  }
  team.rethrow();
}

}  // namespace atrous
