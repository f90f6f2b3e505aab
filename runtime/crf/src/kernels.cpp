// Splat, blur and slice for one instruction set: compiled with ATROUS_TARGET (its name), ATROUS_WIDTH and its flags.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "embedding.h"
#include "target.h"

namespace atrous {
namespace {

// clang-format off: each needs the ones before it
#include "vectors.inl"
#include "unary.inl"
#include "splat_blur.inl"
#include "slice.inl"
// clang-format on

// Rows of up to 32 lanes stay in registers; longer ones are processed 32 lanes at a time. A Kernel<0, S> has 2 lanes.
template <template <int, class> class Kernel, class S, class... Arguments>
void run_for_lanes(std::size_t lanes, Arguments&&... arguments) {
  switch (lanes) {
    case 2: return Kernel<0, S>::run(std::forward<Arguments>(arguments)...);
    case 4: return Kernel<1, S>::run(std::forward<Arguments>(arguments)...);
    case 8: return Kernel<2, S>::run(std::forward<Arguments>(arguments)...);
    case 12: return Kernel<3, S>::run(std::forward<Arguments>(arguments)...);
    case 16: return Kernel<4, S>::run(std::forward<Arguments>(arguments)...);
    case 20: return Kernel<5, S>::run(std::forward<Arguments>(arguments)...);
    case 24: return Kernel<6, S>::run(std::forward<Arguments>(arguments)...);
    case 28: return Kernel<7, S>::run(std::forward<Arguments>(arguments)...);
    default: return Kernel<8, S>::run(std::forward<Arguments>(arguments)...);
  }
}

template <template <int, class> class Kernel, class Job, class... Arguments>
void run_kernel(const Job& job, Storage storage, Arguments... arguments) {
  if (storage == Storage::kHalf) {
    run_for_lanes<Kernel, Half>(job.lanes, job, arguments...);
  } else {
    run_for_lanes<Kernel, float>(job.lanes, job, arguments...);
  }
}

void splat(const SplatJob& job, Storage storage, std::size_t begin, std::size_t end) {
  run_kernel<Splat>(job, storage, begin, end);
}
void blur(const BlurJob& job, Storage storage, std::size_t begin, std::size_t end) {
  run_kernel<Blur>(job, storage, begin, end);
}
void slice(const SliceJob& job, Storage storage, std::size_t first_run, std::size_t last_run, float* scratch) {
  run_kernel<Slice>(job, storage, first_run, last_run, scratch);
}

template <class V, class S>
void store_parts(const float* row, S* to, std::size_t lanes) {
  for (std::size_t lane = 0; lane < lanes; lane += sizeof(V) / 4) store(to + lane, load<V>(row + lane));
}

template <class S>
void store_lanes(const float* row, S* to, std::size_t lanes) {
  if (lanes == 2) return store_parts<V2>(row, to, lanes);
  store_parts<V4>(row, to, lanes);
}

void store_row(const float* row, void* rows, std::size_t index, std::size_t lanes, Storage storage) {
  if (storage == Storage::kHalf) {
    store_lanes(row, static_cast<Half*>(rows) + index * lanes, lanes);
  } else {
    store_lanes(row, static_cast<float*>(rows) + index * lanes, lanes);
  }
}

}  // namespace

// In simplex.cpp.
bool ATROUS_JOIN(embed_run_, ATROUS_TARGET)(const KeyLayout&, const float*, const float (*)[kRun], float (*)[kRun],
                                            std::uint64_t (*)[kRun]);

extern const Kernels ATROUS_JOIN(kKernels_, ATROUS_TARGET);
const Kernels ATROUS_JOIN(kKernels_, ATROUS_TARGET){
    ATROUS_STRING(ATROUS_TARGET), prepare_runs, splat, blur, slice, store_row, ATROUS_JOIN(embed_run_, ATROUS_TARGET)};

}  // namespace atrous
