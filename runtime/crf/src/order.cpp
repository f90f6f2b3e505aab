// Builds the runs of order.h; adjoining pieces of a narrow image merge into full runs.
#include "order.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace atrous {
namespace {

void require_size(std::uint64_t points) {
  if (points == 0 || points > 0x7fffffffU) throw std::invalid_argument("an image has 1 to 2^31 - 1 pixels");
}

}  // namespace

void PixelOrder::append(std::uint32_t source, std::uint32_t length) {
  while (length > 0) {
    const bool extends = !runs_.empty() && points_ != band_begin_ && runs_.back().length < kRun &&
                         runs_.back().source + runs_.back().length == source;
    if (!extends) runs_.push_back({points_, source, 0});
    const std::uint32_t taken = std::min(kRun - runs_.back().length, length);
    runs_.back().length += taken;
    points_ += taken;
    source += taken;
    length -= taken;
  }
}

std::size_t PixelOrder::run_at(std::size_t first) const {
  if (first == points_) return runs_.size();
  const auto found = std::lower_bound(runs_.begin(), runs_.end(), first,
                                      [](const Run& run, std::size_t position) { return run.first < position; });
  if (found == runs_.end() || found->first != first) throw std::invalid_argument("a band must start at a run");
  return static_cast<std::size_t>(found - runs_.begin());
}

std::vector<std::uint32_t> PixelOrder::by_source(std::size_t first, std::size_t last) const {
  std::vector<std::uint32_t> result(last - first);
  std::iota(result.begin(), result.end(), static_cast<std::uint32_t>(first));
  const auto earlier = [&](std::uint32_t a, std::uint32_t b) { return runs_[a].source < runs_[b].source; };
  std::sort(result.begin(), result.end(), earlier);
  return result;
}

PixelOrder PixelOrder::without(const std::vector<std::uint8_t>& left_out) const {
  PixelOrder order;
  order.points_ = points_;
  order.band_ = band_;
  for (const Run& run : runs_) {
    for (std::uint32_t begin = 0, end = 0; begin < run.length; begin = end + 1) {
      for (end = begin; end < run.length && left_out[run.first + end] == 0;) ++end;
      if (end > begin) order.runs_.push_back({run.first + begin, run.source + begin, end - begin});
    }
  }
  return order;
}

PixelOrder PixelOrder::linear(std::uint32_t points) {
  require_size(points);
  PixelOrder order;
  order.runs_.reserve(points / kRun + 2);
  order.append(0, points);
  return order;
}

PixelOrder PixelOrder::tiled(std::uint32_t height, std::uint32_t width) {
  const std::uint64_t points = std::uint64_t{height} * width;
  require_size(points);
  PixelOrder order;
  order.band_ = static_cast<std::uint32_t>(std::min(std::uint64_t{kTile} * width, points));
  for (std::uint32_t top = 0; top < height; top += kTile) {
    order.band_begin_ = order.points_;
    for (std::uint32_t left = 0; left < width; left += kTile) {
      const std::uint32_t bottom = std::min(height, top + kTile);
      const std::uint32_t right = std::min(width, left + kTile);
      for (std::uint32_t y = top; y < bottom; ++y) order.append(y * width + left, right - left);
    }
  }
  return order;
}

}  // namespace atrous
