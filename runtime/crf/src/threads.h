// A small thread pool: a team runs one function on every rank, and meets at barriers between phases.
//
// Work is handed out in chunks whose results do not depend on who computes them, so any number of threads gives the
// same bits. A team never waits for helpers that are busy elsewhere: it runs with those it gets.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace atrous {

class Team {
 public:
  explicit Team(int size);
  int size() const { return size_; }

  // Everybody waits until everybody is here.
  void barrier();

  // Calls work(begin, end) over [0, count) in pieces of at most `chunk`, own share first, then what others left.
  // Ends with a barrier. An exception is kept, later phases are skipped, and run_team raises it.
  template <class Work>
  void share(int rank, std::size_t count, std::size_t chunk, Work&& work) {
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        for (int turn = 0; turn < size_; ++turn) {
          const std::size_t owner = static_cast<std::size_t>((rank + turn) % size_);
          const std::size_t parts = static_cast<std::size_t>(size_);
          const std::size_t first = count / parts * owner + count % parts * owner / parts;
          const std::size_t last = count / parts * (owner + 1) + count % parts * (owner + 1) / parts;
          for (;;) {
            const std::size_t begin = first + cursors_[owner].next.fetch_add(chunk, std::memory_order_relaxed);
            if (begin >= last) break;
            work(begin, begin + chunk < last ? begin + chunk : last);
          }
        }
      } catch (...) {
        fail(std::current_exception());
      }
    }
    barrier();
  }

  // Calls work() on rank 0 alone, then everybody continues.
  template <class Work>
  void alone(int rank, Work&& work) {
    if (rank == 0 && !failed_.load(std::memory_order_relaxed)) {
      try {
        work();
      } catch (...) {
        fail(std::current_exception());
      }
    }
    barrier();
  }

  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  void fail(std::exception_ptr error);
  void rethrow();

 private:
  struct alignas(64) Cursor {
    std::atomic<std::size_t> next{0};
  };
  int size_;
  std::vector<Cursor> cursors_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> generation_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

// Runs body(team, rank) on at most `threads` threads, the caller being rank 0; returns when all have finished.
void run_team(int threads, const std::function<void(Team&, int)>& body);

}  // namespace atrous
