#include "fork.h"

#ifndef _WIN32
#include <pthread.h>
#endif

namespace atrous {

#ifdef _WIN32
void at_fork(ForkHandler, ForkHandler, ForkHandler) {}
#else
void at_fork(ForkHandler before, ForkHandler in_parent, ForkHandler in_child) {
  pthread_atfork(before, in_parent, in_child);
}
#endif

}  // namespace atrous
