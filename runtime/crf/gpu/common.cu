// The dense CRF on a GPU, equal to the CPU's (../src) in every bit. NVRTC compiles it at run time, without fused
// multiply-adds and with subnormal numbers flushed to zero as on the CPU; g++ compiles it for the tests.
//
// Each sum is formed by one thread in the CPU's order: a vertex adds its pixels row by row, a pixel its corners. No
// result depends on atomics. Vertices are numbered by their keys, not by first touch, which changes no sum.
//
// A kernel is a series of parts. THREADS introduces the first part; SYNCED one that starts when all threads of the
// block have finished the part before. Variables that live across parts are shared, or equal in all threads. Any block
// size gives the same result, except in the kernels of the sort.

#ifndef ATROUS_EMULATION  // which defines these as loops over the threads
#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define THREADS
#define SYNCED __syncthreads();
#endif

// Loops over [0, count) with all threads of all blocks. Inside THREADS or SYNCED.
#define EACH(item, count)                                                                                      \
  for (Index item = Index(blockIdx.x) * blockDim.x + threadIdx.x, items_##item = (count); item < items_##item; \
       item += Index(gridDim.x) * blockDim.x)

typedef unsigned long long Index;
typedef unsigned long long Word;

struct Entry {
  unsigned index;  // a vertex (of a pixel) or a pixel (of a vertex)
  float weight;
};

struct Neighbors {
  int previous, next;  // -1 where absent
};

// Quotient and remainder; 64-bit division is slow.
DEVICE unsigned divide(Index item, unsigned by) { return item >> 32 != 0 ? unsigned(item / by) : unsigned(item) / by; }
DEVICE unsigned modulo(Index item, unsigned by) { return item >> 32 != 0 ? unsigned(item % by) : unsigned(item) % by; }
