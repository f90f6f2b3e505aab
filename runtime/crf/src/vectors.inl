// Rows of labels as explicit vectors of ATROUS_WIDTH (4, 8 or 16) floats, and their operations.
//
// Included by kernels.cpp and simplex.cpp, once per instruction set, inside their own namespaces: objects
// compiled for different processors must not share anything.

template <int N>
struct VectorOf;
template <>
struct VectorOf<2> {
  typedef float type __attribute__((vector_size(8)));
  typedef std::int32_t bits __attribute__((vector_size(8)));
};
template <>
struct VectorOf<4> {
  typedef float type __attribute__((vector_size(16)));
  typedef std::int32_t bits __attribute__((vector_size(16)));
};
template <>
struct VectorOf<8> {
  typedef float type __attribute__((vector_size(32)));
  typedef std::int32_t bits __attribute__((vector_size(32)));
};
template <>
struct VectorOf<16> {
  typedef float type __attribute__((vector_size(64)));
  typedef std::int32_t bits __attribute__((vector_size(64)));
};
using V2 = VectorOf<2>::type;
using V4 = VectorOf<4>::type;
using V8 = VectorOf<8>::type;
using V16 = VectorOf<16>::type;

constexpr int kWidth = ATROUS_WIDTH;
using Wide = VectorOf<kWidth>::type;
using Narrow = VectorOf<kWidth / 2>::type;

struct Half {
  std::uint16_t bits;
};

// ---- load and store -------------------------------------------------------------------------------------------------

template <class V>
ATROUS_INLINE V load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

// GCC takes a copy of 8 bytes through a general register.
template <>
ATROUS_INLINE V2 load<V2>(const float* from) {
  typedef V2 Unaligned __attribute__((aligned(4), may_alias));
  return *reinterpret_cast<const Unaligned*>(from);
}

template <class V>
ATROUS_INLINE void store(float* to, const V& value) {
  std::memcpy(to, &value, sizeof(V));
}

#if defined(__F16C__)
template <class V>
ATROUS_INLINE V load(const Half* from) {
  V value;
  if constexpr (sizeof(V) == 8) {
    std::int32_t two;
    std::memcpy(&two, from, sizeof(two));
    const __m128 wide = _mm_cvtph_ps(_mm_cvtsi32_si128(two));
    std::memcpy(&value, &wide, sizeof(V));
  } else if constexpr (sizeof(V) == 16) {
    const __m128 wide = _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    std::memcpy(&value, &wide, sizeof(V));
  } else if constexpr (sizeof(V) == 32) {
    const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    std::memcpy(&value, &wide, sizeof(V));
  } else {
#if defined(__AVX512F__)
    const __m512 wide = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    std::memcpy(&value, &wide, sizeof(V));
#endif
  }
  return value;
}

template <class V>
ATROUS_INLINE void store(Half* to, const V& value) {
  if constexpr (sizeof(V) == 8) {
    const __m128 wide = _mm_setr_ps(value[0], value[1], 0.0F, 0.0F);
    const std::int32_t two = _mm_cvtsi128_si32(_mm_cvtps_ph(wide, _MM_FROUND_TO_NEAREST_INT));
    std::memcpy(to, &two, sizeof(two));
  } else if constexpr (sizeof(V) == 16) {
    __m128 wide;
    std::memcpy(&wide, &value, sizeof(V));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_cvtps_ph(wide, _MM_FROUND_TO_NEAREST_INT));
  } else if constexpr (sizeof(V) == 32) {
    __m256 wide;
    std::memcpy(&wide, &value, sizeof(V));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(wide, _MM_FROUND_TO_NEAREST_INT));
  } else {
#if defined(__AVX512F__)
    __m512 wide;
    std::memcpy(&wide, &value, sizeof(V));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(wide, _MM_FROUND_TO_NEAREST_INT));
#endif
  }
}
#elif defined(__aarch64__)
template <class V>
ATROUS_INLINE V load(const Half* from) {
  V value;
  if constexpr (sizeof(V) == 8) {
    const Half four[4] = {from[0], from[1], {0}, {0}};
    const float32x4_t part = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&four[0].bits)));
    std::memcpy(&value, &part, sizeof(V));
  }
  for (std::size_t i = 0; i < sizeof(V) / 16; ++i) {
    const float32x4_t part = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from[4 * i].bits)));
    std::memcpy(reinterpret_cast<char*>(&value) + 16 * i, &part, 16);
  }
  return value;
}

template <class V>
ATROUS_INLINE void store(Half* to, const V& value) {
  if constexpr (sizeof(V) == 8) {
    const float four[4] = {value[0], value[1], 0.0F, 0.0F};
    std::uint16_t bits[4];
    vst1_u16(bits, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(four))));
    std::memcpy(to, bits, 4);
  }
  for (std::size_t i = 0; i < sizeof(V) / 16; ++i) {
    float32x4_t part;
    std::memcpy(&part, reinterpret_cast<const char*>(&value) + 16 * i, 16);
    vst1_u16(&to[4 * i].bits, vreinterpret_u16_f16(vcvt_f16_f32(part)));
  }
}
#else
// Without hardware conversion: values are finite and of a half's range.
ATROUS_INLINE float widen(Half half) {
  const std::uint32_t magnitude = half.bits & 0x7fffU;
  float value = static_cast<float>(magnitude) * 5.9604644775390625e-8F;  // a subnormal counts units of 2^-24
  if (magnitude >= 0x400U) {
    const std::uint32_t bits = (magnitude << 13) + (112U << 23);
    std::memcpy(&value, &bits, 4);
  }
  return (half.bits & 0x8000U) != 0 ? -value : value;
}

ATROUS_INLINE Half narrow(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude < 0x38800000U) {
    // Beside 0.5 the last bit of a float is 2^-24: adding 0.5 rounds to a subnormal's units.
    const float units = std::abs(value) + 0.5F;
    std::memcpy(&bits, &units, 4);
    return {static_cast<std::uint16_t>(sign | (bits - 0x3f000000U))};
  }
  if (magnitude > 0x477fe000U) magnitude = 0x477fe000U;
  magnitude += 0xfffU + ((magnitude >> 13) & 1U);
  return {static_cast<std::uint16_t>(sign | ((magnitude >> 13) - (112U << 10)))};
}

template <class V>
ATROUS_INLINE V load(const Half* from) {
  V value;
  for (std::size_t i = 0; i < sizeof(V) / 4; ++i) value[i] = widen(from[i]);
  return value;
}

template <class V>
ATROUS_INLINE void store(Half* to, const V& value) {
  for (std::size_t i = 0; i < sizeof(V) / 4; ++i) to[i] = narrow(value[i]);
}
#endif

// ---- arithmetic -----------------------------------------------------------------------------------------------------

template <class V>
ATROUS_INLINE V larger(const V& a, const V& b) {
  return a > b ? a : b;
}

// The value if all bits of `mask` are set, 0 if none is.
template <class V>
ATROUS_INLINE V keep_if(const V& value, std::int32_t mask) {
  typename VectorOf<sizeof(V) / 4>::bits bits;
  std::memcpy(&bits, &value, sizeof(V));
  bits &= mask;
  V kept;
  std::memcpy(&kept, &bits, sizeof(V));
  return kept;
}

ATROUS_INLINE float sum_of(const V4& v) { return (v[0] + v[2]) + (v[1] + v[3]); }
ATROUS_INLINE V4 low_half(const V8& v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
ATROUS_INLINE V4 high_half(const V8& v) { return __builtin_shufflevector(v, v, 4, 5, 6, 7); }
ATROUS_INLINE V8 low_half(const V16& v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
ATROUS_INLINE V8 high_half(const V16& v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }

// Neighboring lanes exchanged: the two labels of each pixel.
ATROUS_INLINE V4 swap_pairs(const V4& v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2); }
ATROUS_INLINE V8 swap_pairs(const V8& v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6); }
ATROUS_INLINE V16 swap_pairs(const V16& v) {
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}

// Every lane twice.
ATROUS_INLINE V4 double_lanes(const V2& v) { return __builtin_shufflevector(v, v, 0, 0, 1, 1); }
ATROUS_INLINE V8 double_lanes(const V4& v) { return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3); }
ATROUS_INLINE V16 double_lanes(const V8& v) {
  return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
}

ATROUS_INLINE float largest_of(const V4& v) {
  const V4 pairs = larger(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
  return pairs[0] > pairs[1] ? pairs[0] : pairs[1];
}
ATROUS_INLINE float largest_of(const V8& v) { return largest_of(larger(low_half(v), high_half(v))); }
ATROUS_INLINE float largest_of(const V16& v) { return largest_of(larger(low_half(v), high_half(v))); }

// exp(x) for x <= 0, relative error below 1e-7; exactly 0 where the result would be subnormal.
// exp(x) = 2^n exp(r), |r| <= ln(2)/2; (exp(r) - 1 - r) / r^2 is a polynomial fitted at Chebyshev nodes.
template <class V>
ATROUS_INLINE V exp_nonpositive(const V& x) {
  using Bits = typename VectorOf<sizeof(V) / 4>::bits;
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  constexpr float kLowest = -87.3F;
  const V clamped = larger(x, V{} + kLowest);
  const V shifted = clamped * 1.44269504F + kRounder;
  const V n = shifted - kRounder;
  const V r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  V series = r * 0.00139336870F + 0.00836320501F;
  series = series * r + 0.0416664630F;
  series = series * r + 0.166665763F;
  series = series * r + 0.5F;
  const V mantissa = (series * r) * r + r + 1.0F;
  Bits exponent;
  std::memcpy(&exponent, &shifted, sizeof(V));
  exponent = (exponent << 23) + 0x3f800000;
  V power;
  std::memcpy(&power, &exponent, sizeof(V));
  return x > kLowest ? mantissa * power : V{};
}

// ---- rows -----------------------------------------------------------------------------------------------------------

// 4 * Quads floats: as many wide vectors as fit, then one of 8 and one of 4 as needed.
template <int Quads>
struct Row {
  static constexpr int kLanes = 4 * Quads;
  static constexpr int kWides = kLanes / kWidth;
  static constexpr bool kHas8 = kWidth == 16 && kLanes % 16 >= 8;
  static constexpr bool kHas4 = kWidth >= 8 && kLanes % 8 == 4;

  Wide wide[kWides > 0 ? kWides : 1];
  V8 eight;
  V4 four;

  // act(vector, offset of its first lane)
  template <class Act>
  ATROUS_INLINE void each(Act&& act) {
    if constexpr (kWides > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < kWides; ++i) act(wide[i], i * kWidth);
    }
    if constexpr (kHas8) act(eight, kWides * kWidth);
    if constexpr (kHas4) act(four, kLanes - 4);
  }
  template <class Act>
  ATROUS_INLINE void each_with(Row& other, Act&& act) {
    if constexpr (kWides > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < kWides; ++i) act(wide[i], other.wide[i]);
    }
    if constexpr (kHas8) act(eight, other.eight);
    if constexpr (kHas4) act(four, other.four);
  }

  template <class S>
  ATROUS_INLINE void load_from(const S* from) {
    each([&](auto& v, int at) ATROUS_INLINE_LAMBDA { v = load<std::decay_t<decltype(v)>>(from + at); });
  }
  template <class S>
  ATROUS_INLINE void store_to(S* to) {
    each([&](auto& v, int at) ATROUS_INLINE_LAMBDA { store(to + at, v); });
  }
  ATROUS_INLINE void fill(float value) {
    each([&](auto& v, int) ATROUS_INLINE_LAMBDA { v = std::decay_t<decltype(v)>{} + value; });
  }
  template <class S>
  ATROUS_INLINE void add_scaled(float weight, const S* from) {
    each([&](auto& v, int at) ATROUS_INLINE_LAMBDA { v += weight * load<std::decay_t<decltype(v)>>(from + at); });
  }
  // Adds quads in the same order at every width (even ones, odd ones, then both), so the bits agree.
  ATROUS_INLINE float sum() {
    V4 even{}, odd{};
    if constexpr (kWidth == 4) {
#pragma GCC unroll 8
      for (int i = 0; i < kWides; ++i) (i % 2 == 0 ? even : odd) += wide[i];
    } else {
      V8 pairs{};
#pragma GCC unroll 8
      for (int i = 0; i < kWides; ++i) {
        if constexpr (kWidth == 16) {
          pairs += low_half(wide[i]);
          pairs += high_half(wide[i]);
        } else {
          pairs += wide[i];
        }
      }
      if constexpr (kHas8) pairs += eight;
      even = low_half(pairs);
      odd = high_half(pairs);
      if constexpr (kHas4) even += four;
    }
    return sum_of(even + odd);
  }
  ATROUS_INLINE float largest() {
    float most = -3.0e38F;
    if constexpr (kWides > 0) {
      Wide all = wide[0];
#pragma GCC unroll 8
      for (int i = 1; i < kWides; ++i) all = larger(all, wide[i]);
      most = largest_of(all);
    }
    if constexpr (kHas8) most = std::max(most, largest_of(eight));
    if constexpr (kHas4) most = std::max(most, largest_of(four));
    return most;
  }
};

// Two floats, for one or two labels.
template <>
struct Row<0> {
  static constexpr int kLanes = 2;

  V2 two;

  template <class Act>
  ATROUS_INLINE void each(Act&& act) {
    act(two, 0);
  }
  template <class Act>
  ATROUS_INLINE void each_with(Row& other, Act&& act) {
    act(two, other.two);
  }
  template <class S>
  ATROUS_INLINE void load_from(const S* from) {
    two = load<V2>(from);
  }
  template <class S>
  ATROUS_INLINE void store_to(S* to) {
    store(to, two);
  }
  ATROUS_INLINE void fill(float value) { two = V2{} + value; }
  template <class S>
  ATROUS_INLINE void add_scaled(float weight, const S* from) {
    two += weight * load<V2>(from);
  }
  ATROUS_INLINE float largest() { return std::max(two[0], two[1]); }
};

// Prefetches the cache lines of a row for reading, or writing (Write = 1).
template <int Lanes, class S, int Write = 0>
ATROUS_INLINE void prefetch_row(const S* row) {
  constexpr int kBytes = Lanes * static_cast<int>(sizeof(S));
  constexpr int kStep = std::gcd(kBytes, 64);  // rows start at multiples of it
  const char* const begin = reinterpret_cast<const char*>(row);
#pragma GCC unroll 8
  for (int at = 0; at < kBytes; at += 64) __builtin_prefetch(begin + at, Write, 3);
  if constexpr (64 - kStep + kBytes > (kBytes + 63) / 64 * 64) __builtin_prefetch(begin + kBytes - 1, Write, 3);
}
