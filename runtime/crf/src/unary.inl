// Reads the unary once: from the caller's layout into rows in storage order, without padding, checked on the way.
//
// The rows hold energies U, float32 as given: the reference subtracts its messages from the same numbers.

typedef double D4 __attribute__((vector_size(32)));
typedef std::int64_t L4 __attribute__((vector_size(32)));
typedef std::uint64_t U4 __attribute__((vector_size(32)));

template <class To, class From>
ATROUS_INLINE To reinterpret(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "reinterpret keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

constexpr float kFarthest = 80.0F;  // exp(-80) no longer changes a sum that holds a 1

// exp(x) for -700 <= x <= 0: 2^n exp(r), |r| <= ln(2)/2, its series to r^11.
ATROUS_INLINE D4 exp_double(const D4& x) {
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  const D4 shifted = x * 1.44269504088896341 + kRounder;
  const D4 r = x - (shifted - kRounder) * 0.693147180559945309;
  D4 series = D4{} + 1.0 / 39916800.0;
  for (const double inverse : {3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0}) {
    series = series * r + 1.0 / inverse;
  }
  const L4 power = reinterpret<L4>(reinterpret<U4>(reinterpret<L4>(shifted)) << 52) + 0x3ff0000000000000LL;
  return series * reinterpret<D4>(power);
}

// log(x) of a normal x > 0, within 1e-15; the C library's differs from one system to the next. With x = 2^n m, m around
// 1 and s = (m - 1) / (m + 1), log m = 2 atanh(s), a series in s.
inline double log_double(double x) {
  const auto bits = reinterpret<std::uint64_t>(x);
  auto mantissa = reinterpret<double>((bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL);
  double exponent = static_cast<double>(static_cast<int>(bits >> 52) - 1023);
  if (mantissa > 1.41421356237309505) {
    mantissa *= 0.5;
    exponent += 1.0;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0), z = s * s;
  double series = 0.0;
  for (int odd = 23; odd > 1; odd -= 2) series = (series + 2.0 / odd) * z;
  return exponent * 0.693147180559945309 + (2.0 * s + s * series);
}

ATROUS_INLINE void transpose_4x4(V4& a, V4& b, V4& c, V4& d) {
  const V4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const V4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V4 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  d = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// tile[i][l] = value(l, source + i); the padding lanes repeat the last label.
inline void load_tile(const UnaryJob& job, std::size_t source, std::ptrdiff_t length, float* tile) {
  // strides may be negative, so everything is signed here
  const auto labels = static_cast<std::ptrdiff_t>(job.labels), lanes = static_cast<std::ptrdiff_t>(job.lanes);
  const float* const data = job.data + static_cast<std::ptrdiff_t>(source) * job.point_stride;
  std::ptrdiff_t label = 0;
  if (job.point_stride == 1) {
    for (; label + 4 <= labels; label += 4) {
      const float* const from = data + label * job.label_stride;
      std::ptrdiff_t i = 0;
      for (; i + 4 <= length; i += 4) {
        V4 a = load<V4>(from + i), b = load<V4>(from + job.label_stride + i);
        V4 c = load<V4>(from + 2 * job.label_stride + i), d = load<V4>(from + 3 * job.label_stride + i);
        transpose_4x4(a, b, c, d);
        float* const to = tile + i * lanes + label;
        store(to, a);
        store(to + lanes, b);
        store(to + 2 * lanes, c);
        store(to + 3 * lanes, d);
      }
      for (; i < length; ++i) {
        for (std::ptrdiff_t l = 0; l < 4; ++l) tile[i * lanes + label + l] = from[l * job.label_stride + i];
      }
    }
  }
  for (std::ptrdiff_t i = 0; i < length; ++i) {
    const float* const from = data + i * job.point_stride;
    for (std::ptrdiff_t l = label; l < labels; ++l) tile[i * lanes + l] = from[l * job.label_stride];
    for (std::ptrdiff_t l = labels; l < lanes; ++l) tile[i * lanes + l] = from[(labels - 1) * job.label_stride];
  }
}

// The range of one run; exponent bits identify NaN and infinities.
inline UnaryRange measure_range(const float* tile, std::size_t count) {
  UnaryRange range{3.0e38F, -3.0e38F, 0};
  V4 low = V4{} + range.lowest, high = V4{} + range.highest, spoiled{};
  for (std::size_t at = 0; at < count; at += 4) {
    const V4 value = load<V4>(tile + at);
    low = value < low ? value : low;
    high = larger(value, high);
    const auto exponent = reinterpret<VectorOf<4>::bits>(value) & 0x7f800000;
    spoiled += exponent == 0x7f800000 ? V4{} + 1.0F : V4{};
  }
  for (int lane = 0; lane < 4; ++lane) {
    range.lowest = std::min(range.lowest, low[lane]);
    range.highest = std::max(range.highest, high[lane]);
    range.unusable += static_cast<std::uint32_t>(spoiled[lane]);
  }
  return range;
}

// Turns a row of scores into the energies -log(softmax), at most `cap`.
inline void convert_scores(float* row, std::size_t labels, std::size_t lanes, float cap) {
  float most = row[0];
  for (std::size_t l = 1; l < labels; ++l) most = std::max(most, row[l]);
  double sum = 0.0;
  for (std::size_t l = 0; l < lanes; l += 4) {
    V4 distance = most - load<V4>(row + l);
    distance = distance > kFarthest ? V4{} + kFarthest : distance;
    const D4 share = exp_double(-__builtin_convertvector(distance, D4));
    for (std::size_t lane = 0; lane < 4 && l + lane < labels; ++lane) sum += share[lane];
  }
  const double total = most + log_double(sum);
  for (std::size_t l = 0; l < labels; ++l) row[l] = std::min(static_cast<float>(total - row[l]), cap);
}

// The place of a fine coordinate between two coarse ones, with aligned corners as in Caffe's Interp.
struct Between {
  Between(std::size_t at, std::size_t fine, std::size_t coarse) {
    const float ratio = fine > 1 ? static_cast<float>(coarse - 1) / static_cast<float>(fine - 1) : 0.0F;
    const float place = ratio * static_cast<float>(at);
    low = std::min(static_cast<std::size_t>(place), coarse - 1);
    high = std::min(low + 1, coarse - 1);
    share_high = place - static_cast<float>(low);
    share_low = 1.0F - share_high;
  }
  std::size_t low, high;
  float share_low, share_high;
};

// tile[i][l] = the coarse scores at source + i, linear between their four neighbors.
inline void upsample_tile(const UnaryJob& job, std::size_t source, std::size_t length, float* tile) {
  const std::size_t lanes = job.lanes;
  const CoarseGrid& grid = job.coarse;
  for (std::size_t i = 0; i < length; ++i) {
    const std::size_t at = source + i;
    const Between y(at / job.width, grid.padded_height, grid.height);
    const Between x(at % job.width, grid.padded_width, grid.width);
    const float* const top = grid.scores + y.low * grid.width * lanes;
    const float* const bottom = grid.scores + y.high * grid.width * lanes;
    for (std::size_t l = 0; l < lanes; l += 4) {
      const auto blend = [&](const float* row) ATROUS_INLINE_LAMBDA {
        return x.share_low * load<V4>(row + x.low * lanes + l) + x.share_high * load<V4>(row + x.high * lanes + l);
      };
      store(tile + i * lanes + l, y.share_low * blend(top) + y.share_high * blend(bottom));
    }
  }
}

// gaps[l] = least over the pixels of U(l) - min U.
inline void lower_gaps(const float* row, std::size_t lanes, float* gaps) {
  V4 least = load<V4>(row);
  for (std::size_t l = 4; l < lanes; l += 4) {
    const V4 other = load<V4>(row + l);
    least = other < least ? other : least;
  }
  const float best = -largest_of(-least);
  for (std::size_t l = 0; l < lanes; l += 4) {
    const V4 gap = load<V4>(row + l) - best, before = load<V4>(gaps + l);
    store(gaps + l, gap < before ? gap : before);
  }
}

// Packs rows of lanes into rows of labels, in place. A store may reach beyond its row, into the next one.
inline void drop_padding(float* tile, std::size_t length, std::size_t labels, std::size_t lanes) {
  if (labels == lanes) return;
  for (std::size_t i = 1; i < length; ++i) {
    for (std::size_t l = 0; l < lanes; l += 4) store(tile + i * labels + l, load<V4>(tile + i * lanes + l));
  }
}

// Energies or logarithms of two labels, one label after the other: rows of two would leave most of a vector empty.
inline UnaryRange prepare_two(const UnaryJob& job, const Run& run, float* gaps) {
  float planes[2][kRun];
  for (int l = 0; l < 2; ++l) {
    const auto source = static_cast<std::ptrdiff_t>(run.source - job.first_source);
    const float* const from = job.data + l * job.label_stride + source * job.point_stride;
    for (std::ptrdiff_t i = 0; i < run.length; ++i) planes[l][i] = from[i * job.point_stride];
    std::fill(planes[l] + run.length, planes[l] + kRun, planes[l][run.length - 1]);
  }
  const UnaryRange range = measure_range(planes[0], 2 * kRun);
  for (int at = 0; at < 2 * kRun && job.kind == UnaryKind::kLogarithm; at += kWidth) {
    store(planes[0] + at, larger(-load<Wide>(planes[0] + at), Wide{}));
  }
  float* const rows = job.rows + 2 * std::size_t{run.first};
  for (int l = 0; l < 2; ++l) {
    Wide gap = Wide{} + gaps[l];
    for (int at = 0; at < kRun; at += kWidth) {
      const Wide above = larger(load<Wide>(planes[l] + at) - load<Wide>(planes[1 - l] + at), Wide{});
      gap = above < gap ? above : gap;
    }
    gaps[l] = -largest_of(-gap);
    for (std::size_t i = 0; i < run.length; ++i) rows[2 * i + l] = planes[l][i];
  }
  return range;
}

inline void prepare_runs(const UnaryJob& job, std::size_t first_run, std::size_t last_run, float* tile, float* gaps) {
  const std::size_t lanes = job.lanes, labels = job.labels;
  for (std::size_t r = first_run; r < last_run; ++r) {
    const Run run = job.order->run(r);
    if (labels == 2 && job.kind != UnaryKind::kScores) {
      job.ranges[r] = prepare_two(job, run, gaps);
      continue;
    }
    if (job.coarse.scores != nullptr) {
      upsample_tile(job, run.source, run.length, tile);
    } else {
      load_tile(job, run.source - job.first_source, run.length, tile);
    }
    job.ranges[r] = measure_range(tile, run.length * lanes);
    for (std::size_t i = 0; i < run.length; ++i) {
      float* const row = tile + i * lanes;
      if (job.kind == UnaryKind::kScores) convert_scores(row, labels, lanes, job.cap);
      if (job.kind == UnaryKind::kLogarithm) {
        for (std::size_t l = 0; l < lanes; l += 4) store(row + l, larger(-load<V4>(row + l), V4{}));
      }
      std::fill(row + labels, row + lanes, kPaddingEnergy);
      lower_gaps(row, lanes, gaps);
    }
    drop_padding(tile, run.length, labels, lanes);
    std::memcpy(job.rows + run.first * labels, tile, run.length * labels * sizeof(float));
  }
}
