// The pool behind run_team: threads are created on demand, sleep between jobs, and are forgotten in a forked child.
#include "threads.h"

#include <thread>

#include <pthread.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace atrous {
namespace {

constexpr int kSpins = 3000;
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

struct Worker {
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
        std::thread([this, raw] { serve(raw); }).detach();
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
  for (std::size_t i = 0; i < helpers.size(); ++i) {
    Pool::start(helpers[i], [&, i] {
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
