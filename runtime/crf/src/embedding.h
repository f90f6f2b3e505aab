// Where a pixel lies in the permutohedral lattice: the enclosing simplex and the barycentric weights of its corners.
//
// The set of vertices decides the blur, so this float32 arithmetic keeps the published order of operations: one
// last-place difference can create or lose a vertex. Never compile it with contraction into fused multiply-adds or with
// relaxed floating point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "order.h"

namespace atrous {

constexpr int kMostDimensions = 64;
constexpr int kLongestKeyWords = 20;  // 64 coordinates of 16 to 20 bits

// The features of all pixels: either free (dimensions x points), or grid positions over sigmas, then channels.
struct Features {
  int dimensions = 0;
  std::size_t points = 0;
  const float* free = nullptr;  // dimension-major, or null

  std::vector<std::uint32_t> grid;     // slowest axis first; features take the fastest axis first (x before y)
  std::vector<float> position_sigmas;  // in feature order: x, y, z...
  std::vector<float> channel_sigmas;
  const std::uint8_t* bytes = nullptr;  // points x channels, one of these two
  const float* floats = nullptr;

  // out[f][i], f < dimensions, i < length, for source pixels source ... source + length - 1; 0 from length to kRun.
  void fill(std::size_t source, std::size_t length, float (*out)[kRun]) const;
  // Lowest and highest value of each feature.
  void bounds(std::vector<float>& low, std::vector<float>& high) const;
};

// The packing of a vertex key (its first d coordinates) into words: coordinate minus lowest, in just enough bits.
class KeyLayout {
 public:
  // Throws std::range_error when a coordinate leaves 16 bits: the sigma is too small for the feature's range.
  KeyLayout(const Features& features, const std::vector<float>& scale);

  int words() const { return words_; }
  // Adding delta = (1, 1, ..., 1 - D at axis, ..., 1) to a key gives the next vertex along the axis; axis d changes the
  // implied coordinate.
  void step(int axis, std::uint64_t* delta) const;

  int dimensions = 0;
  std::vector<std::int32_t> lowest;
  std::vector<int> word;
  std::vector<int> shift;
  std::vector<int> used;  // bits of each word

 private:
  int words_ = 1;
};

// Scale factors of the elevation, rounded as the reference rounds them.
std::vector<float> elevation_scale(int dimensions);

}  // namespace atrous
