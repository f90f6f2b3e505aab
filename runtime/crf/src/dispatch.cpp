// Selects the compiled kernels that this processor runs.
#include "kernels.h"

#if defined(ATROUS_X86)
#include <cpuid.h>
#endif

namespace atrous {

#if defined(ATROUS_X86)
namespace {

// __builtin_cpu_supports needs a run-time library that Clang does not link on Windows, so this reads CPUID itself.
struct Processor {
  Processor() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return;
    const bool fma_and_f16c = (c & bit_FMA) != 0 && (c & bit_F16C) != 0;
    unsigned saved = 0, high = 0;  // the registers that the system saves
    asm volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return;
    constexpr unsigned kYmm = 0x06, kZmm = 0xe6;
    constexpr unsigned kNeeded = bit_AVX512F | bit_AVX512VL | bit_AVX512BW | bit_AVX512DQ;
    avx2 = fma_and_f16c && (b & bit_AVX2) != 0 && (saved & kYmm) == kYmm;
    avx512 = avx2 && (b & kNeeded) == kNeeded && (saved & kZmm) == kZmm;
  }
  bool avx2 = false, avx512 = false;
};

}  // namespace

extern const Kernels kKernels_portable;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_avx512;

std::vector<const Kernels*> runnable_kernels() {
  std::vector<const Kernels*> all{&kKernels_portable};
  const Processor processor;
  if (processor.avx2) all.push_back(&kKernels_avx2);
  if (processor.avx512) all.push_back(&kKernels_avx512);
  return all;
}
#else
extern const Kernels ATROUS_ONLY_TARGET;

std::vector<const Kernels*> runnable_kernels() { return {&ATROUS_ONLY_TARGET}; }
#endif

}  // namespace atrous
