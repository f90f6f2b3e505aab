// Slice, compatibility, unary, softmax, label count: one pass over the pixels, each row touched once.
//
// T = -U, then T -= C(F) term after term, q = exp(T - max T) / sum: the reference's operations in the reference's
// order, because ten iterations turn last-place differences at an undecided pixel into visible ones.

constexpr std::size_t kPrefetchPixels = 6;

// output[l][source + i] = tile[i][l]
inline void store_labels(const float* tile, std::size_t length, std::size_t labels, std::size_t lanes, float* output,
                         std::size_t points) {
  std::size_t label = 0;
  for (; label + 4 <= labels; label += 4) {
    float* const to = output + label * points;
    std::size_t i = 0;
    for (; i + 4 <= length; i += 4) {
      const float* const from = tile + i * lanes + label;
      V4 a = load<V4>(from), b = load<V4>(from + lanes), c = load<V4>(from + 2 * lanes), d = load<V4>(from + 3 * lanes);
      transpose_4x4(a, b, c, d);
      store(to + i, a);
      store(to + points + i, b);
      store(to + 2 * points + i, c);
      store(to + 3 * points + i, d);
    }
    for (; i < length; ++i) {
      for (std::size_t l = 0; l < 4; ++l) to[l * points + i] = tile[i * lanes + label + l];
    }
  }
  for (; label < labels; ++label) {
    for (std::size_t i = 0; i < length; ++i) output[label * points + i] = tile[i * lanes + label];
  }
}

inline std::size_t best_label(const float* row, std::size_t labels) {
  std::size_t best = 0;
  for (std::size_t l = 1; l < labels; ++l) {
    if (row[l] > row[best]) best = l;
  }
  return best;
}

template <int Quads, class S>
struct Slice {
  static constexpr int kBlock = Row<Quads>::kLanes;
  static constexpr bool kPairs = Quads == 0;

  // F = sum over the corners of one pixel, one block of lanes; the usual corner counts are compile-time constants.
  template <int Corners>
  static ATROUS_INLINE void gather_corners(const SliceTerm& term, std::size_t pixel, std::size_t lanes,
                                           std::size_t block, Row<Quads>& filtered) {
    const S* const rows = static_cast<const S*>(term.rows) + block;
    const std::size_t corners = Corners > 0 ? Corners : term.corners;
    const Entry* const entries = term.entries + pixel * corners;
    filtered.fill(0.0F);
#pragma GCC unroll 6
    for (std::size_t c = 0; c < corners; ++c) filtered.add_scaled(entries[c].weight, rows + entries[c].index * lanes);
  }
  static ATROUS_INLINE void gather(const SliceTerm& term, std::size_t pixel, std::size_t lanes, std::size_t block,
                                   Row<Quads>& filtered) {
    if (term.corners == 6) return gather_corners<6>(term, pixel, lanes, block, filtered);
    if (term.corners == 3) return gather_corners<3>(term, pixel, lanes, block, filtered);
    gather_corners<0>(term, pixel, lanes, block, filtered);
  }

  static ATROUS_INLINE void prefetch(const SliceJob& job, std::size_t pixel) {
    for (std::size_t t = 0; t < job.term_count; ++t) {
      const SliceTerm& term = job.terms[t];
      if (term.stays_cached) continue;
      const Entry* const entries = term.entries + pixel * term.corners;
      for (std::size_t c = 0; c < term.corners; ++c) {
        const S* const row = static_cast<const S*>(term.rows) + entries[c].index * job.lanes;
        for (std::size_t block = 0; block < job.lanes; block += kBlock) prefetch_row<kBlock>(row + block);
      }
    }
  }

  // Subtracts the messages of matrix terms, which need the whole filtered row first.
  static void add_matrix_messages(const SliceJob& job, std::size_t pixel, float* message, float* filtered_row) {
    const std::size_t lanes = job.lanes;
    for (std::size_t t = 0; t < job.term_count; ++t) {
      const SliceTerm& term = job.terms[t];
      if (term.kind != Compatibility::kMatrix) continue;
      const float factor = term.factor != nullptr ? term.factor[pixel] : 1.0F;
      Row<Quads> row;
      for (std::size_t block = 0; block < lanes; block += kBlock) {
        gather(term, pixel, lanes, block, row);
        row.store_to(filtered_row + block);
      }
      for (std::size_t block = 0; block < lanes; block += kBlock) {
        row.load_from(message + block);
        for (std::size_t l = 0; l < job.labels; ++l) {
          row.add_scaled(-factor * filtered_row[l], term.compatibility + l * lanes + block);
        }
        row.store_to(message + block);
      }
    }
  }

  // The messages of all pixels of a run with two lanes: they stay in registers only for one term at a time.
  static void gather_pairs(const SliceJob& job, const Run& run, bool with_unary, float* tile, float* filtered_row) {
    for (std::size_t i = 0; i < run.length; ++i) {
      V2 total{};
      if (with_unary) total = -load<V2>(job.unary + (run.first + i) * job.labels);
      if (with_unary && job.labels == 1) total[1] = -kPaddingEnergy;
      store(tile + 2 * i, total);
    }
    bool any_matrix = false;
    for (std::size_t t = 0; t < job.term_count; ++t) {
      const SliceTerm& term = job.terms[t];
      if (term.kind == Compatibility::kMatrix) {
        any_matrix = true;
      } else if (term.corners == 6) {
        add_pairs<6>(term, run, tile);
      } else if (term.corners == 3) {
        add_pairs<3>(term, run, tile);
      } else {
        add_pairs<0>(term, run, tile);
      }
    }
    if (!any_matrix) return;
    for (std::size_t i = 0; i < run.length; ++i) add_matrix_messages(job, run.first + i, tile + 2 * i, filtered_row);
  }

  template <int Corners>
  static void add_pairs(const SliceTerm& term, const Run& run, float* tile) {
    float filtered[2 * kRun];
    for (std::size_t i = 0; i < run.length; ++i) {
      Row<0> sum;
      gather_corners<Corners>(term, run.first + i, 2, 0, sum);
      store(filtered + 2 * i, sum.two);
    }
    const bool potts = term.kind == Compatibility::kPotts;
    float weight[kWidth];
    for (int l = 0; l < kWidth; ++l) weight[l] = potts ? term.compatibility[0] : -term.compatibility[l % 2];
    for (std::size_t at = 0; at < 2 * run.length; at += kWidth) {
      Wide message = load<Wide>(filtered + at);
      if (term.factor != nullptr) message *= double_lanes(load<Narrow>(term.factor + run.first + at / 2));
      store(tile + at, load<Wide>(tile + at) + load<Wide>(weight) * message);
    }
  }

  // normalize() for pairs, several pixels at a time. Reads and writes up to the end of a vector.
  static void normalize_pairs(std::size_t length, float* tile) {
    for (std::size_t at = 0; at < 2 * length; at += kWidth) {
      const Wide score = load<Wide>(tile + at);
      const Wide share = exp_nonpositive(score - larger(score, swap_pairs(score)));
      store(tile + at, share / (share + swap_pairs(share)));
    }
  }

  // message = -unary (or 0 without one) plus the messages of all terms at one pixel.
  static ATROUS_INLINE void gather_messages(const SliceJob& job, std::size_t pixel, const float* unary, float* message,
                                            float* filtered_row) {
    const std::size_t lanes = job.lanes;
    bool any_matrix = false;
    for (std::size_t block = 0; block < lanes; block += kBlock) {
      Row<Quads> total, filtered;
      if (unary != nullptr) {
        total.load_from(unary + block);
        total.each([&](auto& v, int at) ATROUS_INLINE_LAMBDA {
          using Vector = std::decay_t<decltype(v)>;
          typename VectorOf<sizeof(Vector) / 4>::bits padded;
          std::memcpy(&padded, job.padding + block + at, sizeof(padded));
          v = padded ? Vector{} - kPaddingEnergy : -v;
        });
      } else {
        total.fill(0.0F);
      }
      for (std::size_t t = 0; t < job.term_count; ++t) {
        const SliceTerm& term = job.terms[t];
        if (term.kind == Compatibility::kMatrix) {
          any_matrix = true;
          continue;
        }
        gather(term, pixel, lanes, block, filtered);
        const float factor = term.factor != nullptr ? term.factor[pixel] : 1.0F;
        if (term.kind == Compatibility::kPotts) {
          const float weight = term.compatibility[0];
          total.each_with(filtered, [&](auto& sum, auto& f) ATROUS_INLINE_LAMBDA { sum += weight * (f * factor); });
        } else {
          filtered.each([&](auto& f, int at) ATROUS_INLINE_LAMBDA {
            f = load<std::decay_t<decltype(f)>>(term.compatibility + block + at) * (f * factor);
          });
          total.each_with(filtered, [&](auto& sum, auto& f) ATROUS_INLINE_LAMBDA { sum -= f; });
        }
      }
      total.store_to(message + block);
    }
    if (any_matrix) add_matrix_messages(job, pixel, message, filtered_row);
  }

  // Turns every row of the tile into its softmax, in three short loops over the pixels: within one pixel the maximum,
  // the exponentials and the quotient depend on each other, those of different pixels do not.
  static void normalize(std::size_t lanes, std::size_t length, float* tile) {
    float most[kRun], sum[kRun];
    for (std::size_t i = 0; i < length; ++i) {
      most[i] = -3.0e38F;
      for (std::size_t block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        score.load_from(tile + i * lanes + block);
        most[i] = std::max(most[i], score.largest());
      }
    }
    for (std::size_t i = 0; i < length; ++i) {
      sum[i] = 0.0F;
      for (std::size_t block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        float* const row = tile + i * lanes + block;
        score.load_from(row);
        score.each([&](auto& s, int) ATROUS_INLINE_LAMBDA { s = exp_nonpositive(s - most[i]); });
        sum[i] += score.sum();
        score.store_to(row);
      }
    }
    for (std::size_t i = 0; i < length; ++i) {
      for (std::size_t block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        float* const row = tile + i * lanes + block;
        score.load_from(row);
        score.each([&](auto& s, int) ATROUS_INLINE_LAMBDA { s /= sum[i]; });
        score.store_to(row);
      }
    }
  }

  // sum over labels of q log q + U q - q m, at the current q.
  static double variational_energy(const SliceJob& job, std::size_t pixel, const float* unary_row,
                                   const float* message) {
    const S* const q_row = static_cast<const S*>(job.q) + pixel * job.lanes;
    double total = 0.0;
    for (std::size_t l = 0; l < job.labels; ++l) {
      const double q = kPairs ? load<V2>(q_row)[l % 2] : load<V4>(q_row + l / 4 * 4)[l % 4];
      total += q * std::log(std::max(q, 1e-20)) + unary_row[l] * q - q * message[l];
    }
    return total;
  }

  static void store_q(const SliceJob& job, std::size_t first, std::size_t length, const float* tile) {
    S* const q = static_cast<S*>(job.q) + first * job.lanes;
    if constexpr (kPairs && std::is_same_v<S, float>) {
      std::memcpy(q, tile, length * 2 * sizeof(float));
      for (const GainedTerm& term : *job.gained) {
        float gained[2 * kRun];
        for (std::size_t at = 0; at < 2 * length; at += kWidth) {
          store(gained + at, double_lanes(load<Narrow>(term.gain + first + at / 2)) * load<Wide>(tile + at));
        }
        std::memcpy(term.q + 2 * first, gained, length * 2 * sizeof(float));
      }
      return;
    }
    for (std::size_t at = 0; at < length * job.lanes; at += kBlock) {
      Row<Quads> copy;
      copy.load_from(tile + at);
      copy.store_to(q + at);
    }
  }

  static std::uint32_t count_changes(const SliceJob& job, std::size_t first, std::size_t length, const float* tile) {
    std::uint32_t changed = 0;
    for (std::size_t i = 0; i < length; ++i) {
      const std::size_t best = best_label(tile + i * job.lanes, job.labels);
      changed += job.best[first + i] != best;
      job.best[first + i] = static_cast<std::uint16_t>(best);
    }
    return changed;
  }

  static void mark_settled(const SliceJob& job, std::size_t first, std::size_t length, const float* tile) {
    for (std::size_t i = 0; i < length; ++i) {
      float most = 0.0F;
      for (std::size_t block = 0; block < job.lanes; block += kBlock) {
        Row<Quads> row;
        row.load_from(tile + i * job.lanes + block);
        most = std::max(most, row.largest());
      }
      job.settled[first + i] = most > job.settle ? 1 : 0;
    }
  }

  static ATROUS_INLINE void gather_run(const SliceJob& job, const Run& run, float* tile, float* filtered_row) {
    for (std::size_t i = 0; i < run.length; ++i) {
      const std::size_t pixel = run.first + i;
      const float* const unary = job.unary + pixel * job.labels;
      const std::size_t ahead = std::min(pixel + kPrefetchPixels, job.points - 1);
      prefetch(job, ahead);
      prefetch_row<kBlock>(job.unary + ahead * job.labels);
      if (job.q != nullptr) prefetch_row<kBlock, S, 1>(static_cast<const S*>(job.q) + pixel * job.lanes);
      gather_messages(job, pixel, job.energy == nullptr ? unary : nullptr, tile + i * job.lanes, filtered_row);
    }
  }

  static void run(const SliceJob& job, std::size_t first_run, std::size_t last_run, float* scratch) {
    const std::size_t lanes = job.lanes, labels = job.labels;
    float* const tile = scratch;
    float* const filtered_row = scratch + kRun * lanes;
    for (std::size_t r = first_run; r < last_run; ++r) {
      const Run run = job.order->run(r);
      if constexpr (kPairs) {
        gather_pairs(job, run, job.energy == nullptr, tile, filtered_row);
      } else {
        gather_run(job, run, tile, filtered_row);
      }
      if (job.energy != nullptr) {
        job.energy[r] = 0.0;
        for (std::size_t i = 0; i < run.length; ++i) {
          const std::size_t pixel = run.first + i;
          job.energy[r] += variational_energy(job, pixel, job.unary + pixel * labels, tile + i * lanes);
        }
        continue;
      }
      if constexpr (kPairs) {
        normalize_pairs(run.length, tile);
      } else {
        normalize(lanes, run.length, tile);
      }
      if (job.q != nullptr) store_q(job, run.first, run.length, tile);
      if (job.settled != nullptr) mark_settled(job, run.first, run.length, tile);
      if (job.best != nullptr) job.changed[r] = count_changes(job, run.first, run.length, tile);
      if (job.output != nullptr) store_labels(tile, run.length, labels, lanes, job.output + run.source, job.points);
    }
  }
};
