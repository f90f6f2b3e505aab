// See placement.h.
#include "placement.h"

#ifdef __linux__
#include <cstdlib>
#include <cstring>

#include <pthread.h>
#endif

namespace atrous {

#ifdef __linux__

namespace {

constexpr int kMostProcessors = 2;

bool is_switched_on() {
  const char* const setting = std::getenv("ATROUS_CRF_AFFINITY");
  return setting == nullptr || std::strcmp(setting, "0") != 0;
}

}  // namespace

Placement::Placement() {
  static const bool switched_on = is_switched_on();
  known_ = switched_on && sched_getaffinity(0, sizeof allowed_, &allowed_) == 0;
  if (!known_) return;
  const int own = sched_getcpu(), processors = CPU_COUNT(&allowed_);
  known_ =
      processors > 1 && processors <= kMostProcessors && own >= 0 && own < CPU_SETSIZE && CPU_ISSET(own, &allowed_);
  if (!known_) return;
  elsewhere_ = allowed_;
  CPU_CLR(own, &elsewhere_);
}

void Placement::keep_away(std::thread::native_handle_type worker) const {
  if (known_) pthread_setaffinity_np(worker, sizeof elsewhere_, &elsewhere_);
}

void Placement::restore_self() const {
  if (known_) pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
}

#else

Placement::Placement() = default;
void Placement::keep_away(std::thread::native_handle_type) const {}
void Placement::restore_self() const {}

#endif

}  // namespace atrous
