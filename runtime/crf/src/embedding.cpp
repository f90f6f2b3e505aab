// The features of embedding.h, 32 pixels at a time in plain loops that every compiler turns into vectors, and the keys'
// layout; simplex.cpp finds the simplices.
#include "embedding.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace atrous {

void Features::fill(std::uint32_t source, int length, float (*out)[kRun]) const {
  if (free != nullptr) {
    for (int f = 0; f < dimensions; ++f) {
      const float* const row = free + static_cast<std::size_t>(f) * points + source;
      for (int i = 0; i < length; ++i) out[f][i] = row[i];
    }
  } else {
    const int axes = static_cast<int>(grid.size());
    std::uint32_t rest = source;
    std::uint32_t at[kMostDimensions];
    for (int a = 0; a < axes; ++a) {
      const std::uint32_t extent = grid[static_cast<std::size_t>(axes - 1 - a)];
      at[a] = rest % extent;
      rest /= extent;
    }
    for (int i = 0; i < length; ++i) {
      for (int a = 0; a < axes; ++a) out[a][i] = static_cast<float>(at[a]);
      for (int a = 0; a < axes && ++at[a] == grid[static_cast<std::size_t>(axes - 1 - a)]; ++a) at[a] = 0;
    }
    for (int a = 0; a < axes; ++a) {
      for (int i = 0; i < length; ++i) out[a][i] = out[a][i] / position_sigmas[static_cast<std::size_t>(a)];
    }
    const std::size_t first = static_cast<std::size_t>(source) * static_cast<std::size_t>(channels);
    for (int c = 0; c < channels; ++c) {
      const float sigma = channel_sigmas[static_cast<std::size_t>(c)];
      float* const row = out[axes + c];
      for (int i = 0; i < length; ++i) {
        const std::size_t index = first + static_cast<std::size_t>(i * channels + c);
        row[i] = bytes != nullptr ? static_cast<float>(bytes[index]) : floats[index];
      }
      for (int i = 0; i < length; ++i) row[i] = row[i] / sigma;
    }
  }
  for (int f = 0; f < dimensions; ++f) {
    for (int i = length; i < kRun; ++i) out[f][i] = 0.0F;
  }
}

void Features::bounds(std::vector<float>& low, std::vector<float>& high) const {
  // Zero is always inside: the reference pads its last group of four pixels with zero features.
  low.assign(static_cast<std::size_t>(dimensions), 0.0F);
  high.assign(static_cast<std::size_t>(dimensions), 0.0F);
  const int axes = static_cast<int>(grid.size());
  auto widen = [&](int f, float value) {
    low[static_cast<std::size_t>(f)] = std::min(low[static_cast<std::size_t>(f)], value);
    high[static_cast<std::size_t>(f)] = std::max(high[static_cast<std::size_t>(f)], value);
  };
  if (free != nullptr) {
    for (int f = 0; f < dimensions; ++f) {
      const float* const row = free + static_cast<std::size_t>(f) * points;
      const auto range = std::minmax_element(row, row + points);
      widen(f, *range.first);
      widen(f, *range.second);
    }
    return;
  }
  for (int a = 0; a < axes; ++a) {
    widen(a, static_cast<float>(grid[static_cast<std::size_t>(axes - 1 - a)] - 1) /
                 position_sigmas[static_cast<std::size_t>(a)]);
  }
  for (int c = 0; c < channels; ++c) {
    const float sigma = channel_sigmas[static_cast<std::size_t>(c)];
    if (bytes != nullptr) {
      widen(axes + c, 255.0F / sigma);
      continue;
    }
    for (std::size_t i = 0; i < points; ++i) {
      widen(axes + c, floats[i * static_cast<std::size_t>(channels) + static_cast<std::size_t>(c)] / sigma);
    }
  }
}

std::vector<float> elevation_scale(int dimensions) {
  const float spread = static_cast<float>(std::sqrt(2.0 / 3.0) * (dimensions + 1));
  std::vector<float> scale;
  for (int i = 0; i < dimensions; ++i) {
    scale.push_back(static_cast<float>(1.0 / std::sqrt(static_cast<double>((i + 2) * (i + 1))) * spread));
  }
  return scale;
}

KeyLayout::KeyLayout(const Features& features, const std::vector<float>& scale) : dimensions(features.dimensions) {
  std::vector<float> low, high;
  features.bounds(low, high);
  const int d = dimensions;
  const double corners = d + 1;
  double sum_low = 0.0, sum_high = 0.0;
  std::vector<double> key_low(static_cast<std::size_t>(d) + 1), key_high(static_cast<std::size_t>(d) + 1);
  for (int j = d; j >= 0; --j) {
    const std::size_t at = static_cast<std::size_t>(j);
    double term_low = 0.0, term_high = 0.0;
    if (j > 0) {
      term_low = static_cast<double>(low[at - 1]) * static_cast<double>(scale[at - 1]);
      term_high = static_cast<double>(high[at - 1]) * static_cast<double>(scale[at - 1]);
    }
    // Rounding to a multiple of D, the repair and the corner move a coordinate by less than 3 D; a neighbour by D.
    key_low[at] = std::floor(sum_low - j * term_high - 4.0 * corners);
    key_high[at] = std::ceil(sum_high - j * term_low + 4.0 * corners);
    sum_low += term_low;
    sum_high += term_high;
  }
  int used = 0;
  for (int i = 0; i < d; ++i) {
    const std::size_t at = static_cast<std::size_t>(i);
    if (!(key_low[at] >= -32768.0 && key_high[at] <= 32767.0)) {
      throw std::range_error("lattice coordinate " + std::to_string(i) + " would reach " +
                             std::to_string(static_cast<long long>(std::max(-key_low[at], key_high[at]))) +
                             ", beyond the 16 bits of a key");
    }
    int bits = 1;
    while ((1LL << bits) <= static_cast<long long>(key_high[at] - key_low[at])) ++bits;
    if (used + bits > 64) {
      ++words_;
      used = 0;
    }
    lowest.push_back(static_cast<std::int32_t>(key_low[at]));
    word.push_back(words_ - 1);
    shift.push_back(used);
    used += bits;
  }
}

void KeyLayout::step(int axis, std::uint64_t* delta) const {
  std::fill_n(delta, words_, std::uint64_t{0});
  for (int i = 0; i < dimensions; ++i) {
    const std::size_t at = static_cast<std::size_t>(i);
    const std::uint64_t change = static_cast<std::uint64_t>(static_cast<std::int64_t>(i == axis ? -dimensions : 1));
    delta[word[at]] += change << shift[at];
  }
}

}  // namespace atrous
