// The storage order of the pixels: square tiles, cut into short runs of neighboring source pixels.
//
// Pixels that lie close together share lattice vertices, so tiles keep the vertices in use inside the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atrous {

constexpr int kRun = 32;   // the longest run; kernels keep one run of rows in the first-level cache
constexpr int kTile = 32;  // side of a tile in pixels

struct Run {
  std::uint32_t first;   // position of its first pixel in storage order
  std::uint32_t source;  // index of its first pixel in the caller's row-major order
  std::uint32_t length;
};

class PixelOrder {
 public:
  // 1 to 2^31 - 1 row-major points without geometry; throws std::invalid_argument for other counts, as does tiled().
  static PixelOrder linear(std::uint32_t points);
  // A height x width image in tiles.
  static PixelOrder tiled(std::uint32_t height, std::uint32_t width);

  std::size_t points() const { return points_; }
  std::size_t runs() const { return runs_.size(); }
  const Run& run(std::size_t i) const { return runs_[i]; }
  // The run that starts at storage position `first`; throws std::invalid_argument if none does.
  std::size_t run_at(std::size_t first) const;
  // The runs [first, last) sorted by source.
  std::vector<std::uint32_t> by_source(std::size_t first, std::size_t last) const;
  // The same positions without the pixels whose byte in `left_out` (in storage order) is not 0.
  PixelOrder without(const std::vector<std::uint8_t>& left_out) const;
  // Points of one band: at its multiples, storage and source have covered the same points.
  std::size_t band() const { return band_; }

 private:
  void append(std::uint32_t source, std::uint32_t length);

  std::vector<Run> runs_;
  std::uint32_t points_ = 0;
  std::uint32_t band_ = kRun;
  std::uint32_t band_begin_ = 0;  // runs do not cross it
};

}  // namespace atrous
