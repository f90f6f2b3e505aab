// Which processor a woken worker starts on: the one place with CPU affinity.
//
// Linux may schedule a woken thread on the waker's processor even if another is idle, and leave both there for
// milliseconds, as long as a whole phase. So the affinity of a worker excludes that processor until the worker runs,
// which sets it back. Only the core's own threads are touched, on Linux, where the caller may use two processors: this
// is what was measured. ATROUS_CRF_AFFINITY=0 in the environment switches it off.
#pragma once

#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace atrous {

class Placement {
 public:
  // On the thread that wakes the others.
  Placement();
  void keep_away(std::thread::native_handle_type worker) const;
  // On the worker.
  void restore_self() const;

 private:
#ifdef __linux__
  cpu_set_t allowed_, elsewhere_;
  bool known_;
#endif
};

}  // namespace atrous
