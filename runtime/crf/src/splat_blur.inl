// Splat gathers the pixels of each vertex; blur walks each chain of neighbors once, in place.
//
// Blur needs no second array: a chain is a line of vertices along one axis, so the old value of the previous vertex
// stays in registers while the new one is written. A vertex without neighbors on the axis is not touched at all.

constexpr std::size_t kPrefetchEntries = 40;
constexpr std::size_t kPrefetchChain = 24;
// With two labels the processor itself has the loads of many rows under way, and prefetching costs as much as the rest.
template <int Quads>
constexpr bool kPrefetches = Quads > 0;

template <int Quads, class S>
struct Splat {
  static void run(const SplatJob& job, std::size_t begin, std::size_t end) {
    if (job.gains != nullptr) {
      sum<true>(job, begin, end);
    } else {
      sum<false>(job, begin, end);
    }
  }

  template <bool Gained>
  static void sum(const SplatJob& job, std::size_t begin, std::size_t end) {
    constexpr int kBlock = Row<Quads>::kLanes;
    const S* const q = static_cast<const S*>(job.q);
    S* const rows = static_cast<S*>(job.rows);
    const S* const base = static_cast<const S*>(job.base);
    const std::size_t lanes = kBlock == 2 ? 2 : job.lanes;
    [[maybe_unused]] const std::size_t last_entry = job.offsets[end];
    for (std::size_t block = 0; block < lanes; block += kBlock) {
      for (std::size_t vertex = begin; vertex < end; ++vertex) {
        Row<Quads> total;
        if (base != nullptr) {
          total.load_from(base + vertex * lanes + block);
        } else {
          total.fill(0.0F);
        }
        for (std::size_t e = job.offsets[vertex]; e < job.offsets[vertex + 1]; ++e) {
          if constexpr (kPrefetches<Quads>) {
            const std::size_t ahead = std::min(e + kPrefetchEntries, last_entry - 1);
            prefetch_row<kBlock>(q + job.entries[ahead].index * lanes + block);
          }
          const std::size_t pixel = job.entries[e].index;
          const float weight = job.entries[e].weight, gain = Gained ? job.gains[pixel] : 1.0F;
          const S* const row = q + pixel * lanes + block;
          total.each([&](auto& v, int at) ATROUS_INLINE_LAMBDA {
            const auto value = load<std::decay_t<decltype(v)>>(row + at);
            v += weight * (Gained ? gain * value : value);  // two roundings, as in the reference
          });
        }
        total.store_to(rows + vertex * lanes + block);
      }
    }
  }
};

template <int Quads, class S>
struct Blur {
  // [begin, end) covers whole chains. Chains are short, so their ends are masked, not jumped over.
  static void run(const BlurJob& job, std::size_t begin, std::size_t end) {
    if (begin == end) return;
    constexpr int kBlock = Row<Quads>::kLanes;
    S* const rows = static_cast<S*>(job.rows);
    const std::size_t lanes = kBlock == 2 ? 2 : job.lanes;
    for (std::size_t block = 0; block < lanes; block += kBlock) {
      const auto row_at = [&](std::size_t i) { return rows + (job.chain[i] >> 1) * lanes + block; };
      Row<Quads> previous, current, next;
      previous.fill(0.0F);
      current.load_from(row_at(begin));
      for (std::size_t i = begin; i < end; ++i) {
        if constexpr (kPrefetches<Quads>) prefetch_row<kBlock>(row_at(std::min(i + kPrefetchChain, end - 1)));
        const std::int32_t goes_on = static_cast<std::int32_t>(job.chain[i] & 1U) - 1;  // all bits, or none at the end
        next.load_from(row_at(std::min(i + 1, end - 1)));
        previous.each_with(next, [&](auto& p, auto& n) ATROUS_INLINE_LAMBDA { p += keep_if(n, goes_on); });
        S* const to = row_at(i);
        current.each_with(previous, [&](auto& c, auto& sides) ATROUS_INLINE_LAMBDA {
          const auto blurred = c + 0.5F * sides;
          sides = keep_if(c, goes_on);
          c = blurred;
        });
        current.store_to(to);
        current = next;
      }
    }
  }
};
