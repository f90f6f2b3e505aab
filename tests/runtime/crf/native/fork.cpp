// Children forked while another thread holds the lock of the kept pages must allocate and end.
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "memory.h"

int main() {
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  std::atomic<bool> ended{false};
  std::thread other([&] {
    while (!ended) {
      std::vector<void*> blocks;
      for (int i = 0; i < 8; ++i) blocks.push_back(atrous::allocate_pages(kBytes));
      for (void* const block : blocks) atrous::release_pages(block, kBytes);
      atrous::release_kept_pages();  // unmaps with the lock held
    }
  });
  int stuck = 0;
  for (int child = 0; child < 300 && stuck == 0; ++child) {
    const pid_t id = fork();
    if (id == 0) {
      alarm(5);
      atrous::release_pages(atrous::allocate_pages(kBytes), kBytes);
      _exit(0);
    }
    int status = 0;
    waitpid(id, &status, 0);
    stuck += status != 0 ? 1 : 0;
  }
  ended = true;
  other.join();
  if (stuck > 0) std::fprintf(stderr, "a forked child waits for the lock of the kept pages\n");
  return stuck > 0 ? 1 : 0;
}
