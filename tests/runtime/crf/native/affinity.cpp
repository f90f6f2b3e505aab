// A worker is kept off its waker's processor until it runs, on two processors only, and never if switched off.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "placement.h"

#ifdef __linux__
#include <initializer_list>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

// The exit code: 0 if the affinity is as expected.
int check(bool switched_on) {
  setenv("ATROUS_CRF_AFFINITY", switched_on ? "1" : "0", 1);
  cpu_set_t allowed, during, after;
  sched_getaffinity(0, sizeof allowed, &allowed);
  const atrous::Placement placement;
  placement.keep_away(pthread_self());
  pthread_getaffinity_np(pthread_self(), sizeof during, &during);
  placement.restore_self();
  pthread_getaffinity_np(pthread_self(), sizeof after, &after);
  const bool touches = switched_on && CPU_COUNT(&allowed) == 2;
  if (CPU_COUNT(&during) != CPU_COUNT(&allowed) - (touches ? 1 : 0)) return 1;
  return CPU_EQUAL(&after, &allowed) ? 0 : 2;
}

}  // namespace

int main() {
  for (const bool switched_on : {true, false}) {
    const pid_t child = fork();  // the environment is read once a process
    if (child == 0) _exit(check(switched_on));
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) {
      std::fprintf(stderr, "affinity: wrong with ATROUS_CRF_AFFINITY=%d\n", switched_on ? 1 : 0);
      return 1;
    }
  }
  return 0;
}
#else
int main() { return 0; }
#endif
