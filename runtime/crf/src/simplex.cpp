// The embedding of embedding.h for one instruction set: a vector of pixels at a time.
//
// With D = d + 1: elevate the features onto the plane of zero sum, round to the nearest point whose coordinates are
// multiples of D, rank the differences to find the simplex, read the barycentric weights off the sorted differences.
// Unlike the other kernels this file is compiled without assuming finite values: its input may hold others.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "embedding.h"
#include "kernels.h"
#include "target.h"

namespace atrous {
namespace {

#include "vectors.inl"

using Floats = Wide;
using Integers = VectorOf<kWidth>::bits;  // comparisons give -1 and 0

ATROUS_INLINE void store_integers(std::int32_t* to, const Integers& value) { std::memcpy(to, &value, sizeof(value)); }

// Ranks, weights and nearest points of kWidth pixels; arrays are indexed by coordinate or corner. Returns false when a
// pixel falls outside. Dimensions is 0 for a number known at run time.
template <int Dimensions>
ATROUS_INLINE bool embed_vector(int dimensions, const float* scale, const float (*features)[kRun], int at,
                                float (*weights)[kRun], std::int32_t (*nearest_out)[kRun],
                                std::int32_t (*rank_out)[kRun]) {
  constexpr int kMost = Dimensions != 0 ? Dimensions : kMostDimensions;
  const int d = Dimensions != 0 ? Dimensions : dimensions;
  const float down = 1.0F / static_cast<float>(d + 1);
  const float up = static_cast<float>(d + 1);
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest even integer
  Floats offset[kMost + 1];                // elevated minus nearest
  Floats nearest[kMost + 1];
  Integers rank[kMost + 1];

  Floats sum{};
  for (int j = d; j > 0; --j) {
    const Floats t = load<Floats>(features[j - 1] + at) * scale[j - 1];
    offset[j] = sum - static_cast<float>(j) * t;
    sum = sum + t;
  }
  offset[0] = sum;
  Floats excess{};  // sum of nearest / D, an integer
  for (int j = 0; j <= d; ++j) {
    const Floats rounded = (offset[j] * down + kRounder) - kRounder;
    excess += rounded;
    nearest[j] = rounded * up;
    offset[j] = offset[j] - nearest[j];
    rank[j] = Integers{};
  }
  for (int j = 0; j <= d; ++j) {
    for (int k = j + 1; k <= d; ++k) {
      const Integers less = offset[j] < offset[k];
      rank[j] -= less;
      rank[k] += 1 + less;
    }
  }
  const Integers surplus = __builtin_convertvector(excess, Integers);
  Integers outside{};
  for (int j = 0; j <= d; ++j) {
    const Integers raised = rank[j] + surplus;
    const Integers turn = (raised > d) - (raised < 0);
    const Floats shift = __builtin_convertvector(turn, Floats) * up;
    rank[j] = raised + turn * (d + 1);
    nearest[j] += shift;
    // The reference subtracts the new nearest point from the elevated one; the difference before was exact.
    offset[j] = (offset[j] - shift) * down;
    outside |= (rank[j] < 0) | (rank[j] > d);
    store_integers(nearest_out[j] + at, __builtin_convertvector(nearest[j], Integers));
    store_integers(rank_out[j] + at, rank[j]);
  }
  Floats sorted[kMost + 1];  // the offsets by rank
  for (int r = 0; r <= d; ++r) {
    Integers bits{};
    for (int j = 0; j <= d; ++j) {
      Integers own;
      std::memcpy(&own, &offset[j], sizeof(own));
      bits |= (rank[j] == r) & own;
    }
    std::memcpy(&sorted[r], &bits, sizeof(bits));
  }
  store(weights[0] + at, sorted[d] + (1.0F + (0.0F - sorted[0])));
  for (int q = 1; q <= d; ++q) store(weights[q] + at, sorted[d - q] - sorted[d - q + 1]);
  int beyond = 0;
  for (int i = 0; i < kWidth; ++i) beyond |= outside[i];
  return beyond == 0;
}

// The keys of the corners: corner q + 1 is corner q, plus 1 everywhere, minus D at the coordinate whose rank is d - q.
template <int Dimensions>
void pack_keys(const KeyLayout& layout, const std::int32_t (*nearest)[kRun], const std::int32_t (*rank)[kRun],
               std::uint64_t (*keys)[kRun]) {
  const int d = Dimensions != 0 ? Dimensions : layout.dimensions;
  const int words = layout.words();
  for (int w = 0; w < words; ++w) std::fill_n(keys[w], kRun, std::uint64_t{0});
  std::uint64_t ones[kLongestKeyWords] = {};
  for (int j = 0; j < d; ++j) {
    const std::int32_t lowest = layout.lowest[j];
    const int shift = layout.shift[j];
    ones[layout.word[j]] += std::uint64_t{1} << shift;
    std::uint64_t* const to = keys[layout.word[j]];
    for (int i = 0; i < kRun; ++i) to[i] += std::uint64_t{static_cast<std::uint32_t>(nearest[j][i] - lowest)} << shift;
  }
  for (int q = 0; q < d; ++q) {
    for (int w = 0; w < words; ++w) {
      for (int i = 0; i < kRun; ++i) keys[(q + 1) * words + w][i] = keys[q * words + w][i] + ones[w];
    }
    for (int j = 0; j < d; ++j) {
      const std::uint64_t back = static_cast<std::uint64_t>(d + 1) << layout.shift[j];
      std::uint64_t* const to = keys[(q + 1) * words + layout.word[j]];
      for (int i = 0; i < kRun; ++i) to[i] -= rank[j][i] == d - q ? back : 0;
    }
  }
}

template <int Dimensions>
bool embed_some(const KeyLayout& layout, const float* scale, const float (*features)[kRun], float (*weights)[kRun],
                std::uint64_t (*keys)[kRun]) {
  constexpr int kMost = Dimensions != 0 ? Dimensions : kMostDimensions;
  std::int32_t nearest[kMost + 1][kRun], rank[kMost + 1][kRun];
  bool inside = true;
  for (int at = 0; at < kRun; at += kWidth) {
    inside &= embed_vector<Dimensions>(layout.dimensions, scale, features, at, weights, nearest, rank);
  }
  if (inside) pack_keys<Dimensions>(layout, nearest, rank, keys);
  return inside;
}

}  // namespace

bool ATROUS_JOIN(embed_run_, ATROUS_TARGET)(const KeyLayout& layout, const float* scale, const float (*features)[kRun],
                                            float (*weights)[kRun], std::uint64_t (*keys)[kRun]) {
  switch (layout.dimensions) {
    case 2: return embed_some<2>(layout, scale, features, weights, keys);
    case 5: return embed_some<5>(layout, scale, features, weights, keys);
    default: return embed_some<0>(layout, scale, features, weights, keys);
  }
}

}  // namespace atrous
