// Slice, compatibility, unary, softmax, label count: one pass over the pixels, each row touched once.
//
// T = -U, then T -= C(F) term after term, q = exp(T - max T) / sum: the reference's operations in the reference's
// order, because an undecided pixel turns last-place differences into visible ones within ten iterations.

constexpr std::size_t kPrefetchPixels = 6;

// output[l][source + i] = tile[i][l]
inline void store_labels(const float* tile, int length, int labels, int lanes, float* output, std::size_t points) {
  int label = 0;
  for (; label + 4 <= labels; label += 4) {
    float* const to = output + static_cast<std::size_t>(label) * points;
    int i = 0;
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
      for (int l = 0; l < 4; ++l) to[static_cast<std::size_t>(l) * points + i] = tile[i * lanes + label + l];
    }
  }
  for (; label < labels; ++label) {
    for (int i = 0; i < length; ++i) output[static_cast<std::size_t>(label) * points + i] = tile[i * lanes + label];
  }
}

inline int best_label(const float* row, int labels) {
  int best = 0;
  for (int l = 1; l < labels; ++l) {
    if (row[l] > row[best]) best = l;
  }
  return best;
}

template <int Quads, class S>
struct Slice {
  static constexpr int kBlock = 4 * Quads;

  // F = sum over the corners of one pixel, one block of lanes; corners known at compile time where they are usual.
  template <int Corners>
  static ATROUS_INLINE void gather_corners(const SliceTerm& term, std::size_t pixel, std::size_t lanes, int block,
                                           Row<Quads>& filtered) {
    const S* const rows = static_cast<const S*>(term.rows) + block;
    const std::size_t corners = Corners > 0 ? Corners : static_cast<std::size_t>(term.corners);
    const Entry* const entries = term.entries + pixel * corners;
    filtered.fill(0.0F);
#pragma GCC unroll 6
    for (std::size_t c = 0; c < corners; ++c) filtered.add_scaled(entries[c].weight, rows + entries[c].index * lanes);
  }
  static ATROUS_INLINE void gather(const SliceTerm& term, std::size_t pixel, std::size_t lanes, int block,
                                   Row<Quads>& filtered) {
    if (term.corners == 6) return gather_corners<6>(term, pixel, lanes, block, filtered);
    if (term.corners == 3) return gather_corners<3>(term, pixel, lanes, block, filtered);
    gather_corners<0>(term, pixel, lanes, block, filtered);
  }

  static ATROUS_INLINE void prefetch(const SliceJob& job, std::size_t pixel) {
    for (int t = 0; t < job.term_count; ++t) {
      const SliceTerm& term = job.terms[t];
      if (term.stays_cached) continue;
      const Entry* const entries = term.entries + pixel * static_cast<std::size_t>(term.corners);
      for (int c = 0; c < term.corners; ++c) {
        const S* const row = static_cast<const S*>(term.rows) + entries[c].index * static_cast<std::size_t>(job.lanes);
        for (int block = 0; block < job.lanes; block += kBlock) prefetch_row<kBlock>(row + block);
      }
    }
  }

  // Subtracts the messages of matrix terms, for which the whole filtered row is needed first.
  static void add_matrix_messages(const SliceJob& job, std::size_t pixel, float* message, float* filtered_row) {
    const std::size_t lanes = static_cast<std::size_t>(job.lanes);
    for (int t = 0; t < job.term_count; ++t) {
      const SliceTerm& term = job.terms[t];
      if (term.kind != Compatibility::kMatrix) continue;
      const float factor = term.factor != nullptr ? term.factor[pixel] : 1.0F;
      Row<Quads> row;
      for (int block = 0; block < job.lanes; block += kBlock) {
        gather(term, pixel, lanes, block, row);
        row.store_to(filtered_row + block);
      }
      for (int block = 0; block < job.lanes; block += kBlock) {
        row.load_from(message + block);
        for (int l = 0; l < job.labels; ++l) {
          row.add_scaled(-factor * filtered_row[l], term.compatibility + static_cast<std::size_t>(l) * lanes + block);
        }
        row.store_to(message + block);
      }
    }
  }

  // message = -unary (or 0 without one) plus the messages of all terms at one pixel.
  static ATROUS_INLINE void gather_messages(const SliceJob& job, std::size_t pixel, const float* unary, float* message,
                                            float* filtered_row) {
    const std::size_t lanes = static_cast<std::size_t>(job.lanes);
    bool any_matrix = false;
    for (int block = 0; block < job.lanes; block += kBlock) {
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
      for (int t = 0; t < job.term_count; ++t) {
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

  // Every row of the tile becomes its softmax. Three short loops over the pixels instead of one long one: a pixel's
  // maximum, exponentials and quotient wait for each other, those of different pixels do not.
  static void normalise(int lanes, int length, float* tile) {
    const std::size_t stride = static_cast<std::size_t>(lanes);
    float most[kRun], sum[kRun];
    for (int i = 0; i < length; ++i) {
      most[i] = -3.0e38F;
      for (int block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        score.load_from(tile + static_cast<std::size_t>(i) * stride + block);
        most[i] = std::max(most[i], score.largest());
      }
    }
    for (int i = 0; i < length; ++i) {
      sum[i] = 0.0F;
      for (int block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        float* const row = tile + static_cast<std::size_t>(i) * stride + block;
        score.load_from(row);
        score.each([&](auto& s, int) ATROUS_INLINE_LAMBDA { s = exp_nonpositive(s - most[i]); });
        sum[i] += score.sum();
        score.store_to(row);
      }
    }
    for (int i = 0; i < length; ++i) {
      for (int block = 0; block < lanes; block += kBlock) {
        Row<Quads> score;
        float* const row = tile + static_cast<std::size_t>(i) * stride + block;
        score.load_from(row);
        score.each([&](auto& s, int) ATROUS_INLINE_LAMBDA { s /= sum[i]; });
        score.store_to(row);
      }
    }
  }

  // sum over labels of q log q + U q - q m, at the current q.
  static double variational_energy(const SliceJob& job, std::size_t pixel, const float* unary_row,
                                   const float* message) {
    const S* const q_row = static_cast<const S*>(job.q) + pixel * static_cast<std::size_t>(job.lanes);
    double total = 0.0;
    for (int l = 0; l < job.labels; ++l) {
      float q;
      if constexpr (std::is_same_v<S, float>) {
        q = q_row[l];
      } else {
        q = load<V4>(q_row + l / 4 * 4)[l % 4];
      }
      const double cost = static_cast<double>(unary_row[l]);
      const double wide = static_cast<double>(q);
      total += wide * std::log(std::max(wide, 1e-20)) + cost * wide - wide * static_cast<double>(message[l]);
    }
    return total;
  }

  static void store_q(const SliceJob& job, std::size_t first, int length, const float* tile) {
    const std::size_t lanes = static_cast<std::size_t>(job.lanes);
    S* const q = static_cast<S*>(job.q) + first * lanes;
    for (std::size_t at = 0; at < static_cast<std::size_t>(length) * lanes; at += kBlock) {
      Row<Quads> copy;
      copy.load_from(tile + at);
      copy.store_to(q + at);
    }
  }

  static std::uint32_t count_changes(const SliceJob& job, std::size_t first, int length, const float* tile) {
    std::uint32_t changed = 0;
    for (int i = 0; i < length; ++i) {
      const int best = best_label(tile + static_cast<std::size_t>(i * job.lanes), job.labels);
      std::uint16_t& before = job.best[first + static_cast<std::size_t>(i)];
      changed += before != best;
      before = static_cast<std::uint16_t>(best);
    }
    return changed;
  }

  static void note_settled(const SliceJob& job, std::size_t first, int length, const float* tile) {
    for (int i = 0; i < length; ++i) {
      float most = 0.0F;
      for (int block = 0; block < job.lanes; block += kBlock) {
        Row<Quads> row;
        row.load_from(tile + i * job.lanes + block);
        most = std::max(most, row.largest());
      }
      job.settled[first + static_cast<std::size_t>(i)] = most > job.settle ? 1 : 0;
    }
  }

  static void run(const SliceJob& job, std::size_t first_run, std::size_t last_run, float* scratch) {
    const std::size_t lanes = static_cast<std::size_t>(job.lanes), labels = static_cast<std::size_t>(job.labels);
    float* const tile = scratch;
    float* const filtered_row = scratch + kRun * lanes;
    for (std::size_t r = first_run; r < last_run; ++r) {
      const Run run = job.order->run(r);
      const int length = job.order->length(r);
      double energy = 0.0;
      for (int i = 0; i < length; ++i) {
        const std::size_t pixel = run.first + static_cast<std::size_t>(i);
        const float* const unary = job.unary + pixel * labels;
        float* const row = tile + static_cast<std::size_t>(i) * lanes;
        const std::size_t ahead = std::min(pixel + kPrefetchPixels, job.points - 1);
        prefetch(job, ahead);
        prefetch_row<kBlock>(job.unary + ahead * labels);
        if (job.q != nullptr) prefetch_row<kBlock, S, 1>(static_cast<const S*>(job.q) + pixel * lanes);
        gather_messages(job, pixel, job.energy == nullptr ? unary : nullptr, row, filtered_row);
        if (job.energy != nullptr) energy += variational_energy(job, pixel, unary, row);
      }
      if (job.energy != nullptr) {
        job.energy[r] = energy;
        continue;
      }
      normalise(job.lanes, length, tile);
      if (job.q != nullptr) store_q(job, run.first, length, tile);
      if (job.settled != nullptr) note_settled(job, run.first, length, tile);
      if (job.best != nullptr) job.changed[r] = count_changes(job, run.first, length, tile);
      if (job.output != nullptr) store_labels(tile, length, job.labels, job.lanes, job.output + run.source, job.points);
    }
  }
};
