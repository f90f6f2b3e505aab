// A small thread pool: a team runs one body on every rank, with barriers between its phases.
//
// Work is split into chunks whose results do not depend on the rank, so any number of threads gives the same bits. A
// team does not wait for threads that are busy elsewhere: it runs with the idle ones.
//
// Rules for a body:
//   1. Every rank makes the same calls of share, alone and barrier. Variables that decide about these calls are written
//      inside share or alone; failed() is the same on every rank between two calls.
//   2. It may throw anywhere. The first exception is kept; all ranks skip the phases after the next barrier; run_team
//      rethrows when every rank has returned. Later barriers do not wait for a rank that threw outside of a phase.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

namespace atrous {

class Team {
 public:
  // Has room for `most` ranks; one until assembled.
  explicit Team(int most) : cursors_(most) {}
  void assemble(int size) noexcept { size_ = size; }
  int size() const { return size_; }

  // Waits until every rank is here.
  void barrier();

  // Calls work(begin, end) over [0, count) in pieces of at most `chunk`: the rank's own share first, then the
  // rest of the others' shares. Ends with a barrier.
  template <class Work>
  void share(int rank, std::size_t count, std::size_t chunk, Work&& work) {
    run_phase([&] {
      for (int turn = 0; turn < size_; ++turn) {
        const std::size_t parts = size_, owner = (rank + turn) % size_;
        const std::size_t first = count / parts * owner + count % parts * owner / parts;
        const std::size_t last = count / parts * (owner + 1) + count % parts * (owner + 1) / parts;
        for (;;) {
          const std::size_t begin = first + cursors_[owner].next.fetch_add(chunk, std::memory_order_relaxed);
          if (begin >= last) break;
          work(begin, begin + chunk < last ? begin + chunk : last);
        }
      }
    });
  }

  // Calls work() on rank 0 alone. Ends with a barrier.
  template <class Work>
  void alone(int rank, Work&& work) {
    run_phase([&] {
      if (rank == 0) work();
    });
  }

  // Whether an exception was thrown before the last barrier.
  bool failed() const { return failed_; }
  // Keeps the exception being handled, if it is the first; leave() also ends this rank's part in the barriers.
  void fail() noexcept;
  void leave() noexcept;
  void rethrow();

 private:
  struct alignas(64) Cursor {
    std::atomic<std::size_t> next{0};
  };

  template <class Phase>
  void run_phase(const Phase& phase) {
    if (!failed_) {
      try {
        phase();
      } catch (...) {
        fail();
      }
    }
    barrier();
  }
  // Counts this rank as arrived; the last one opens the barrier and gets true.
  bool arrive() noexcept;

  int size_ = 1;
  std::vector<Cursor> cursors_;
  std::atomic<int> arrived_{0};
  std::atomic<int> absent_{0};  // ranks that left
  std::atomic<unsigned> generation_{0};
  bool failed_ = false;  // written between the last arrival at a barrier and its opening
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

// Runs body(team, rank) on at most `threads` threads, the caller being rank 0; returns when all have finished.
void run_team(int threads, const std::function<void(Team&, int)>& body);

}  // namespace atrous
