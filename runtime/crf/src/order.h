// The order in which pixels are stored: square tiles, cut into short runs of neighbouring source pixels.
//
// Pixels that lie close together share lattice vertices, so tiles keep the vertices in use inside the cache.
#pragma once

#include <cstdint>
#include <vector>

namespace atrous {

constexpr int kRun = 32;   // the longest run; kernels keep one run of rows in the first-level cache
constexpr int kTile = 32;  // tile side in pixels

struct Run {
  std::uint32_t first;   // position of its first pixel in storage order
  std::uint32_t source;  // index of its first pixel in the caller's row-major order
  std::uint32_t length;
};

class PixelOrder {
 public:
  // Row-major points without geometry.
  static PixelOrder linear(std::uint32_t points);
  // A height x width image, in tiles.
  static PixelOrder tiled(std::uint32_t height, std::uint32_t width);

  std::uint32_t points() const { return points_; }
  std::size_t runs() const { return runs_.size(); }
  const Run& run(std::size_t i) const { return runs_[i]; }
  int length(std::size_t i) const { return static_cast<int>(runs_[i].length); }
  // The run that starts at storage position `first`; throws std::invalid_argument where none does.
  std::size_t run_at(std::size_t first) const;
  // The runs [first, last) in the caller's order.
  std::vector<std::uint32_t> by_source(std::size_t first, std::size_t last) const;
  // The same places without the pixels whose byte (in storage order) is not 0.
  PixelOrder without(const std::vector<std::uint8_t>& left_out) const;
  // Points of one band: from a multiple of it on, storage and source cover the same points.
  std::uint32_t band() const { return band_; }

 private:
  void append(std::uint32_t source, std::uint32_t length);

  std::vector<Run> runs_;
  std::uint32_t points_ = 0;
  std::uint32_t band_ = kRun;
  std::uint32_t band_begin_ = 0;  // runs do not reach across it
};

}  // namespace atrous
