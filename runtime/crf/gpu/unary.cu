// Turns probabilities or scores, also of a coarser grid, into energies.

// exp(x) for -700 <= x <= 0, as in ../src/unary.inl.
DEVICE double exp_double(double x) {
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  const double shifted = x * 1.44269504088896341 + kRounder;
  const double r = x - (shifted - kRounder) * 0.693147180559945309;
  constexpr double kInverse[] = {3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0};
  double series = 1.0 / 39916800.0;
  for (const double inverse : kInverse) series = series * r + 1.0 / inverse;
  const Word power = (Word(__double_as_longlong(shifted)) << 52) + 0x3ff0000000000000ULL;
  return series * __longlong_as_double(static_cast<long long>(power));
}

// log(x) of a normal x > 0, as in ../src/unary.inl.
DEVICE double log_double(double x) {
  const long long bits = __double_as_longlong(x);
  double mantissa = __longlong_as_double((bits & 0xfffffffffffffLL) | 0x3ff0000000000000LL);
  double exponent = double(int(bits >> 52) - 1023);
  if (mantissa > 1.41421356237309505) {
    mantissa *= 0.5;
    exponent += 1.0;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0), z = s * s;
  double series = 0.0;
  for (int odd = 23; odd > 1; odd -= 2) series = (series + 2.0 / odd) * z;
  return exponent * 0.693147180559945309 + (2.0 * s + s * series);
}

DEVICE float half_to_float(unsigned short half) {
  const unsigned sign = unsigned(half & 0x8000) << 16, exponent = (half >> 10) & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0) {
    const float value = float(fraction) * 5.9604644775390625e-8F;  // 2^-24
    return sign != 0 ? -value : value;
  }
  const unsigned widened = exponent == 0x1f ? 0xff : exponent + 112;
  return __uint_as_float(sign | widened << 23 | fraction << 13);
}

enum Kind { kEnergies, kScores, kLogarithms, kProbabilities };

struct Unary {
  const void* data;  // float, or half: labels x points, or labels x coarse_height x coarse_width
  Index label_stride, point_stride;
  int is_half, kind;
  unsigned first;                        // point of the first value
  unsigned coarse_height, coarse_width;  // 0 at full size
  unsigned padded_height, padded_width;  // that the coarse grid covers, with the image as its upper left part
  unsigned width;                        // of the image
  float cap;                             // highest energy of scores
  float clip;                            // lowest probability
};

// Of the values given.
struct Range {
  float lowest, highest;
  float deviation;    // of the sum of a pixel's probabilities from 1
  unsigned unusable;  // number of NaN and infinite values
};

DEVICE float load_unary(const Unary& unary, Index at) {
  if (unary.is_half) return half_to_float(static_cast<const unsigned short*>(unary.data)[at]);
  return static_cast<const float*>(unary.data)[at];
}

// The place of a fine coordinate between two coarse ones, with aligned corners.
struct Between {
  unsigned low, high;
  float share_low, share_high;
};

DEVICE Between find_between(unsigned at, unsigned fine, unsigned coarse) {
  const float ratio = fine > 1 ? float(coarse - 1) / float(fine - 1) : 0.0F;
  const float place = ratio * float(at);
  unsigned low = unsigned(place);
  low = low < coarse - 1 ? low : coarse - 1;
  const float share = place - float(low);
  return {low, low + 1 < coarse - 1 ? low + 1 : coarse - 1, 1.0F - share, share};
}

DEVICE float read_unary(const Unary& unary, unsigned point, unsigned label, const Between& y, const Between& x) {
  const Index plane = label * unary.label_stride;
  if (unary.coarse_height == 0) return load_unary(unary, plane + Index(point - unary.first) * unary.point_stride);
  float blended[2];
  for (int side = 0; side < 2; ++side) {
    const Index line = Index(side == 0 ? y.low : y.high) * unary.coarse_width;
    const float left = load_unary(unary, plane + (line + x.low) * unary.point_stride);
    const float right = load_unary(unary, plane + (line + x.high) * unary.point_stride);
    blended[side] = x.share_low * left + x.share_high * right;
  }
  return y.share_low * blended[0] + y.share_high * blended[1];
}

// The energies of one point, as prepare_runs() in ../src/unary.inl.
DEVICE void convert_point(const Unary& unary, unsigned point, unsigned labels, float* row, Range& range) {
  Between y = {}, x = {};
  if (unary.coarse_height != 0) {
    y = find_between(point / unary.width, unary.padded_height, unary.coarse_height);
    x = find_between(point % unary.width, unary.padded_width, unary.coarse_width);
  }
  float most = -3.0e38F;
  double sum = 0.0;
  for (unsigned l = 0; l < labels; ++l) {
    const float value = read_unary(unary, point, l, y, x);
    row[l] = value;
    most = value > most ? value : most;
    range.lowest = value < range.lowest ? value : range.lowest;
    range.highest = value > range.highest ? value : range.highest;
    range.unusable += (__float_as_uint(value) & 0x7f800000U) == 0x7f800000U ? 1 : 0;
    sum += value;
  }
  if (unary.kind == kScores) {
    constexpr float kFarthest = 80.0F;  // exp(-80) no longer changes a sum that holds a 1
    sum = 0.0;
    for (unsigned l = 0; l < labels; ++l) {
      const float distance = most - row[l];
      sum += exp_double(-double(distance > kFarthest ? kFarthest : distance));
    }
    const double total = most + log_double(sum);
    for (unsigned l = 0; l < labels; ++l) {
      const float energy = float(total - row[l]);
      row[l] = unary.cap < energy ? unary.cap : energy;
    }
  } else if (unary.kind != kEnergies) {
    const bool is_probability = unary.kind == kProbabilities;
    const float deviation = is_probability ? float(sum < 1.0 ? 1.0 - sum : sum - 1.0) : 0.0F;
    range.deviation = deviation > range.deviation ? deviation : range.deviation;
    for (unsigned l = 0; l < labels; ++l) {
      const float value = row[l], clipped = value > unary.clip ? value : unary.clip;
      const float energy = is_probability ? float(-log_double(clipped)) : -value;
      row[l] = energy > 0.0F ? energy : 0.0F;
    }
  }
}

// rows[point * labels + label] = energy; ranges[block].
KERNEL prepare(Unary unary, unsigned count, unsigned labels, float* rows, Range* ranges) {
  constexpr int kMostThreads = 256;
  SHARED Range own[kMostThreads];
  THREADS {
    Range range = {3.0e38F, -3.0e38F, 0.0F, 0};
    EACH(i, count) {
      const unsigned point = unary.first + unsigned(i);
      convert_point(unary, point, labels, rows + Index(point) * labels, range);
    }
    own[threadIdx.x] = range;
  }
  SYNCED {
    if (threadIdx.x == 0) {
      Range all = own[0];
      for (unsigned t = 1; t < blockDim.x; ++t) {
        all.lowest = own[t].lowest < all.lowest ? own[t].lowest : all.lowest;
        all.highest = own[t].highest > all.highest ? own[t].highest : all.highest;
        all.deviation = own[t].deviation > all.deviation ? own[t].deviation : all.deviation;
        all.unusable += own[t].unusable;
      }
      ranges[blockIdx.x] = all;
    }
  }
}
