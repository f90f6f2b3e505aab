// Selects the compiled kernels that this processor runs.
#include "kernels.h"

namespace atrous {

#if defined(ATROUS_X86)
extern const Kernels kKernels_portable;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_avx512;

std::vector<const Kernels*> runnable_kernels() {
  std::vector<const Kernels*> all{&kKernels_portable};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    all.push_back(&kKernels_avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq")) {
      all.push_back(&kKernels_avx512);
    }
  }
  return all;
}
#else
extern const Kernels ATROUS_ONLY_TARGET;

std::vector<const Kernels*> runnable_kernels() { return {&ATROUS_ONLY_TARGET}; }
#endif

}  // namespace atrous
