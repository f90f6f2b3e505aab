// A permutohedral lattice over the pixels of one image: the vertices of each pixel, their neighbors, and the norm.
//
// Built once per image and kernel, then read by every iteration:
//   slices   pixel -> its d + 1 vertices and weights, in storage order of the pixels
//   splats   vertex -> its pixels and weights, in the caller's order: one thread forms each sum, always in this order
//   chains   per axis, the lines of neighboring vertices, for the in-place blur
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "embedding.h"
#include "kernels.h"
#include "memory.h"
#include "order.h"
#include "threads.h"

namespace atrous {

// The filter F(Q) in terms of the raw lattice, with n = lattice(1):
enum class Normalization {
  kNone = 0,       // lattice(Q)
  kBefore = 1,     // lattice(Q / n)
  kAfter = 2,      // lattice(Q) / n
  kSymmetric = 3,  // lattice(Q / sqrt(n)) / sqrt(n)
};

struct BlurAxis {
  Buffer<std::uint32_t> chain;        // see BlurJob
  std::vector<std::uint32_t> pieces;  // positions where pieces of whole chains begin, and the end
};

class Lattice {
 public:
  // `mask`, if given, has one byte per source pixel; a pixel with 0 neither sends nor receives.
  // Throws std::range_error (key overflow) and std::length_error (beyond 2^31 entries).
  Lattice(std::shared_ptr<const PixelOrder> order, const Features& features, Normalization normalization,
          const std::uint8_t* mask, const Kernels& kernels, int threads);

  std::size_t vertices() const { return vertices_; }
  std::size_t corners() const { return corners_; }
  const PixelOrder& order() const { return *order_; }
  std::size_t bytes() const;

  const Entry* slices() const { return slices_.data(); }
  const Entry* splats() const { return splats_.data(); }
  const std::uint32_t* offsets() const { return offsets_.data(); }
  const std::vector<BlurAxis>& axes() const { return axes_; }
  // Splat multiplies by gains()[pixel], slice by factors()[pixel], if not null.
  const float* gains() const { return normalizes(Normalization::kBefore) ? norms_.data() : nullptr; }
  const float* factors() const { return normalizes(Normalization::kAfter) ? norms_.data() : nullptr; }
  // Copies in the caller's order: vertices and weights (without alpha), points x corners; neighbors, corners x vertices
  // x 2, the previous and the next one, or vertices() where there is none.
  void write_simplices(std::int32_t* vertices, float* weights) const;
  void write_neighbors(std::int32_t* neighbors) const;
  // The largest value of F(1): no message of a label can exceed it times the term's weight.
  float peak(int threads) const;

 private:
  class Builder;
  bool normalizes(Normalization side) const {
    return normalization_ == side || normalization_ == Normalization::kSymmetric;
  }
  // Splat and blur of one channel of ones, or of gains.
  void filter_ones(Team& team, int rank, const float* gains, float* mass) const;

  std::shared_ptr<const PixelOrder> order_;
  Normalization normalization_;
  std::size_t corners_;
  std::size_t vertices_ = 0;
  Buffer<Entry> slices_;
  Buffer<Entry> splats_;
  Buffer<std::uint32_t> offsets_;
  std::vector<BlurAxis> axes_;
  Buffer<float> norms_;  // 1 / n or its root, per pixel, then kRun floats of any value; empty without normalization
};

}  // namespace atrous
