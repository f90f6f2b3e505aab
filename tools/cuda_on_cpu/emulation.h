// CUDA's words for g++: a kernel runs block by block, and in a block each part for all threads before the next part.
//
// Forward or backward: a result that depends on the order of the threads within a part, or of the blocks, is a race.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define ATROUS_EMULATION

struct Extent {
  unsigned x;
};
static thread_local Extent threadIdx, blockIdx, blockDim, gridDim;
static thread_local bool runs_backward;

// One turn for each thread of the block.
struct Turn {
  unsigned turn = 0;
  bool begin() {
    threadIdx.x = runs_backward ? blockDim.x - 1 - turn : turn;
    return turn < blockDim.x;
  }
};

#define KERNEL static void
#define DEVICE static inline
#define SHARED static thread_local
#define THREADS for (Turn turn; turn.begin(); ++turn.turn)
#define SYNCED for (Turn turn; turn.begin(); ++turn.turn)

template <class To, class From>
static inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}
static inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
static inline long long __double_as_longlong(double value) { return same_bits<long long>(value); }
static inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
static inline unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
using std::sqrt;

// Flushes subnormal numbers to zero while it lives, as the kernels are compiled for a GPU.
class FlushSubnormals {
#if defined(__x86_64__)
 public:
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1UL << 24)));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long saved_;
#endif
};

// A kernel with its parameters behind pointers, as cuLaunchKernel takes them.
struct Kernel {
  void (*call)(void** parameters);
  std::vector<unsigned> sizes;
};

template <auto kFunction>
struct Caller;
template <class... Parameters, void (*kFunction)(Parameters...)>
struct Caller<kFunction> {
  template <std::size_t... I>
  static void unpack(void** parameters, std::index_sequence<I...>) {
    kFunction(*static_cast<std::decay_t<Parameters>*>(parameters[I])...);
  }
  static void call(void** parameters) { unpack(parameters, std::index_sequence_for<Parameters...>()); }
  static Kernel make() { return {&call, {static_cast<unsigned>(sizeof(Parameters))...}}; }
};

static std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

#define REGISTER(name) static const bool registered_##name = kernels().emplace(#name, Caller<&name>::make()).second;

extern "C" {

// Returns the number of parameters, and their sizes.
int parameter_sizes(const char* name, unsigned* sizes) {
  const std::vector<unsigned>& own = kernels().at(name).sizes;
  for (std::size_t i = 0; i < own.size(); ++i) sizes[i] = own[i];
  return static_cast<int>(own.size());
}

void launch(const char* name, unsigned blocks, unsigned threads, void** parameters, int backward) {
  const Kernel& kernel = kernels().at(name);
  const FlushSubnormals flush;
  runs_backward = backward != 0;
  blockDim.x = threads;
  gridDim.x = blocks;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = runs_backward ? blocks - 1 - block : block;
    kernel.call(parameters);
  }
}

}  // extern "C"
