// Selects the compiled kernels that this processor runs.
#include <cstring>

#include "kernels.h"

namespace atrous {

#if defined(ATROUS_X86)
extern const Kernels kKernels_portable;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_avx512;

namespace {
bool runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
}  // namespace

const Kernels& best_kernels() {
  if (runs_avx512()) return kKernels_avx512;
  return runs_avx2() ? kKernels_avx2 : kKernels_portable;
}

const Kernels* find_kernels(const char* name) {
  if (std::strcmp(name, "portable") == 0) return &kKernels_portable;
  if (std::strcmp(name, "avx2") == 0 && runs_avx2()) return &kKernels_avx2;
  if (std::strcmp(name, "avx512") == 0 && runs_avx512()) return &kKernels_avx512;
  return nullptr;
}
#else
extern const Kernels ATROUS_ONLY_TARGET;

const Kernels& best_kernels() { return ATROUS_ONLY_TARGET; }

const Kernels* find_kernels(const char* name) {
  return std::strcmp(name, ATROUS_ONLY_TARGET.name) == 0 ? &ATROUS_ONLY_TARGET : nullptr;
}
#endif

}  // namespace atrous
