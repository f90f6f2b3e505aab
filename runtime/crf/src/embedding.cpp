// The embedding of embedding.h, 32 pixels at a time in plain loops that every compiler turns into vectors.
//
// With D = d + 1: elevate the features onto the plane of zero sum, round to the nearest point whose coordinates are
// multiples of D, rank the differences to find the simplex, read the barycentric weights off the sorted differences.
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

namespace {

// The keys of the corners of each pixel: corner q + 1 is corner q, plus 1 everywhere, minus D at the coordinate whose
// rank is d - q. Words is 1, or 0 for any number.
template <int Words>
void pack_keys(const KeyLayout& layout, const float (*nearest)[kRun], const std::uint8_t* holders, int length,
               std::uint64_t* keys) {
  const int d = layout.dimensions, corners = d + 1;
  const int words = Words != 0 ? Words : layout.words();
  std::uint64_t ones[kLongestKeyWords] = {};
  std::uint64_t moves[(kMostDimensions + 1) * kLongestKeyWords] = {};  // what corner q + 1 adds, by holder
  for (int j = 0; j < d; ++j) ones[layout.word[static_cast<std::size_t>(j)]] += std::uint64_t{1} << layout.shift[static_cast<std::size_t>(j)];
  for (int j = 0; j <= d; ++j) {
    for (int w = 0; w < words; ++w) moves[j * words + w] = ones[w];
    if (j == d) break;
    const std::size_t at = static_cast<std::size_t>(j);
    moves[j * words + layout.word[at]] -= static_cast<std::uint64_t>(corners) << layout.shift[at];
  }
  std::uint64_t first[kLongestKeyWords][kRun];
  for (int w = 0; w < words; ++w) {
    for (int i = 0; i < kRun; ++i) first[w][i] = 0;
  }
  for (int j = 0; j < d; ++j) {
    const std::size_t at = static_cast<std::size_t>(j);
    const std::int32_t lowest = layout.lowest[at];
    const int shift = layout.shift[at];
    std::uint64_t* const to = first[layout.word[at]];
    for (int i = 0; i < kRun; ++i) {
      const std::uint32_t field = static_cast<std::uint32_t>(static_cast<std::int32_t>(nearest[j][i]) - lowest);
      to[i] += static_cast<std::uint64_t>(field) << shift;
    }
  }
  for (int i = 0; i < length; ++i) {
    const std::uint8_t* const holder = holders + i * corners;
    for (int w = 0; w < words; ++w) keys[w] = first[w][i];
    for (int q = 0; q < d; ++q, keys += words) {
      for (int w = 0; w < words; ++w) keys[words + w] = keys[w] + moves[holder[d - q] * words + w];
    }
    keys += words;
  }
}

template <int Dimensions>
bool embed_some(const KeyLayout& layout, const std::vector<float>& scale, const float (*features)[kRun], int length,
                float* weights, std::uint64_t* keys) {
  constexpr int kMost = Dimensions != 0 ? Dimensions : kMostDimensions;
  const int d = Dimensions != 0 ? Dimensions : layout.dimensions, corners = d + 1;
  const float down = 1.0F / static_cast<float>(corners);
  const float up = static_cast<float>(corners);
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding and taking it away rounds to the nearest even integer
  float offset[kMost + 1][kRun];  // elevated minus nearest
  float nearest[kMost + 1][kRun];
  std::int32_t rank[kMost + 1][kRun];

  float sum[kRun] = {};
  for (int j = d; j > 0; --j) {
    const float factor = scale[static_cast<std::size_t>(j - 1)];
    for (int i = 0; i < kRun; ++i) {
      const float t = features[j - 1][i] * factor;
      offset[j][i] = sum[i] - static_cast<float>(j) * t;
      sum[i] = sum[i] + t;
    }
  }
  std::copy_n(sum, kRun, offset[0]);
  float excess[kRun] = {};  // sum of nearest / D, an integer
  for (int j = 0; j <= d; ++j) {
    for (int i = 0; i < kRun; ++i) {
      const float rounded = (offset[j][i] * down + kRounder) - kRounder;
      excess[i] += rounded;
      nearest[j][i] = rounded * up;
      offset[j][i] = offset[j][i] - nearest[j][i];
      rank[j][i] = 0;
    }
  }
  for (int j = 0; j <= d; ++j) {
    for (int k = j + 1; k <= d; ++k) {
      for (int i = 0; i < kRun; ++i) {
        const std::int32_t less = offset[j][i] < offset[k][i] ? 1 : 0;
        rank[j][i] += less;
        rank[k][i] += 1 - less;
      }
    }
  }
  std::int32_t outside = 0;
  for (int j = 0; j <= d; ++j) {
    for (int i = 0; i < kRun; ++i) {
      const std::int32_t raised = rank[j][i] + static_cast<std::int32_t>(excess[i]);
      const std::int32_t turn = (raised < 0 ? 1 : 0) - (raised > d ? 1 : 0);
      const float shift = static_cast<float>(turn) * up;
      rank[j][i] = raised + turn * corners;
      nearest[j][i] += shift;
      // The reference subtracts the new nearest point from the elevated one; the difference before was exact.
      offset[j][i] = (offset[j][i] - shift) * down;
      outside |= rank[j][i] < 0 || rank[j][i] > d ? 1 : 0;
    }
  }
  if (outside != 0) return false;

  std::uint8_t holders[kRun * (kMost + 1)];  // which coordinate has rank r
  for (int i = 0; i < length; ++i) {
    float sorted[kMost + 1];
    std::uint8_t* const holder = holders + i * corners;
    for (int j = 0; j <= d; ++j) {
      const std::int32_t r = rank[j][i];
      sorted[r] = offset[j][i];
      holder[r] = static_cast<std::uint8_t>(j);
    }
    float* const weight = weights + i * corners;
    weight[0] = sorted[d] + (1.0F + (0.0F - sorted[0]));
    for (int q = 1; q <= d; ++q) weight[q] = sorted[d - q] - sorted[d - q + 1];
  }
  if (layout.words() == 1) {
    pack_keys<1>(layout, nearest, holders, length, keys);
  } else {
    pack_keys<0>(layout, nearest, holders, length, keys);
  }
  return true;
}

}  // namespace

bool embed_run(const KeyLayout& layout, const std::vector<float>& scale, const float (*features)[kRun], int length,
               float* weights, std::uint64_t* keys) {
  switch (layout.dimensions) {
    case 2: return embed_some<2>(layout, scale, features, length, weights, keys);
    case 5: return embed_some<5>(layout, scale, features, length, weights, keys);
    default: return embed_some<0>(layout, scale, features, length, weights, keys);
  }
}

}  // namespace atrous
