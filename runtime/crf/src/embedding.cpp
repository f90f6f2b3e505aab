// The features of embedding.h, 32 pixels at a time in plain loops that every compiler vectorizes, and the layout of the
// keys; simplex.cpp finds the simplices.
#include "embedding.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace atrous {

void Features::fill(std::size_t source, std::size_t length, float (*out)[kRun]) const {
  if (free != nullptr) {
    for (int f = 0; f < dimensions; ++f) std::copy_n(free + f * points + source, length, out[f]);
  } else {
    const std::size_t axes = grid.size(), channels = channel_sigmas.size();
    std::uint32_t at[kMostDimensions];
    std::size_t rest = source;
    for (std::size_t a = 0; a < axes; ++a) {
      const std::uint32_t extent = grid[axes - 1 - a];
      at[a] = static_cast<std::uint32_t>(rest % extent);
      rest /= extent;
    }
    for (std::size_t i = 0; i < length; ++i) {
      for (std::size_t a = 0; a < axes; ++a) out[a][i] = static_cast<float>(at[a]);
      for (std::size_t a = 0; a < axes && ++at[a] == grid[axes - 1 - a]; ++a) at[a] = 0;
    }
    for (std::size_t c = 0; c < channels; ++c) {
      const std::size_t first = source * channels + c;
      float* const row = out[axes + c];
      if (bytes != nullptr) {
        for (std::size_t i = 0; i < length; ++i) row[i] = static_cast<float>(bytes[first + i * channels]);
      } else {
        for (std::size_t i = 0; i < length; ++i) row[i] = floats[first + i * channels];
      }
    }
    for (std::size_t f = 0; f < axes + channels; ++f) {
      const float sigma = f < axes ? position_sigmas[f] : channel_sigmas[f - axes];
      for (std::size_t i = 0; i < length; ++i) out[f][i] = out[f][i] / sigma;
    }
  }
  for (int f = 0; f < dimensions; ++f) std::fill(out[f] + length, out[f] + kRun, 0.0F);
}

void Features::bounds(std::vector<float>& low, std::vector<float>& high) const {
  // Zero is always inside: the reference pads its last group of four pixels with zero features.
  low.assign(dimensions, 0.0F);
  high.assign(dimensions, 0.0F);
  const auto widen = [&](std::size_t f, float value) {
    low[f] = std::min(low[f], value);
    high[f] = std::max(high[f], value);
  };
  if (free != nullptr) {
    for (int f = 0; f < dimensions; ++f) {
      const float* const row = free + f * points;
      const auto range = std::minmax_element(row, row + points);
      widen(f, *range.first);
      widen(f, *range.second);
    }
    return;
  }
  const std::size_t axes = grid.size(), channels = channel_sigmas.size();
  for (std::size_t a = 0; a < axes; ++a) widen(a, static_cast<float>(grid[axes - 1 - a] - 1) / position_sigmas[a]);
  for (std::size_t c = 0; c < channels; ++c) {
    if (bytes != nullptr) {
      widen(axes + c, 255.0F / channel_sigmas[c]);
      continue;
    }
    for (std::size_t i = 0; i < points; ++i) widen(axes + c, floats[i * channels + c] / channel_sigmas[c]);
  }
}

std::vector<float> elevation_scale(int dimensions) {
  const float spread = static_cast<float>(std::sqrt(2.0 / 3.0) * (dimensions + 1));
  std::vector<float> scale;
  for (int i = 0; i < dimensions; ++i) {
    scale.push_back(static_cast<float>(1.0 / std::sqrt((i + 2.0) * (i + 1.0)) * spread));
  }
  return scale;
}

KeyLayout::KeyLayout(const Features& features, const std::vector<float>& scale) : dimensions(features.dimensions) {
  std::vector<float> low, high;
  features.bounds(low, high);
  const int d = dimensions;
  const double corners = d + 1;
  double sum_low = 0.0, sum_high = 0.0;
  std::vector<double> key_low(d + 1), key_high(d + 1);
  for (int j = d; j >= 0; --j) {
    const double term_low = j > 0 ? double{low[j - 1]} * scale[j - 1] : 0.0;
    const double term_high = j > 0 ? double{high[j - 1]} * scale[j - 1] : 0.0;
    // Rounding to a multiple of D, the repair and the corner move a coordinate by less than 3 D; a neighbor by D.
    key_low[j] = std::floor(sum_low - j * term_high - 4.0 * corners);
    key_high[j] = std::ceil(sum_high - j * term_low + 4.0 * corners);
    sum_low += term_low;
    sum_high += term_high;
  }
  used.push_back(0);
  for (int i = 0; i < d; ++i) {
    if (!(key_low[i] >= -32768.0 && key_high[i] <= 32767.0)) {
      const double reach = std::min(9.0e18, std::max(-key_low[i], key_high[i]));  // also where it is NaN
      throw std::range_error("lattice coordinate " + std::to_string(i) + " would reach " +
                             std::to_string(static_cast<long long>(reach)) + ", beyond the 16 bits of a key");
    }
    int bits = 1;
    while ((1LL << bits) <= static_cast<long long>(key_high[i] - key_low[i])) ++bits;
    if (used.back() + bits > 64) {
      ++words_;
      used.push_back(0);
    }
    lowest.push_back(static_cast<std::int32_t>(key_low[i]));
    word.push_back(words_ - 1);
    shift.push_back(used.back());
    used.back() += bits;
  }
}

void KeyLayout::step(int axis, std::uint64_t* delta) const {
  std::fill_n(delta, words_, std::uint64_t{0});
  for (int i = 0; i < dimensions; ++i) {
    const std::int64_t change = i == axis ? -dimensions : 1;
    delta[word[i]] += static_cast<std::uint64_t>(change) << shift[i];
  }
}

}  // namespace atrous
