// An update of the marginals: splat, blur, slice; and the results.
//
// Rows of points and vertices are `lanes` floats long, of which the first `labels` are in use.

// rows[v] = sum over the entries of vertex v: weight * (gain[pixel] * Q[pixel]); without Q, of ones.
KERNEL splat(const unsigned* offsets, const Entry* splats, const float* gains, const float* q, unsigned vertices,
             unsigned labels, unsigned lanes, float* rows) {
  THREADS {
    EACH(item, Index(vertices) * labels) {
      const unsigned vertex = divide(item, labels), label = modulo(item, labels);
      const unsigned end = offsets[vertex + 1];
      float sum = 0.0F;
#pragma unroll 4
      for (unsigned e = offsets[vertex]; e < end; ++e) {
        const Entry entry = splats[e];
        const float value = q != nullptr ? q[Index(entry.index) * lanes + label] : 1.0F;
        sum += entry.weight * (gains != nullptr ? gains[entry.index] * value : value);
      }
      rows[Index(vertex) * lanes + label] = sum;
    }
  }
}

// to[v] = from[v] + (from[previous] + from[next]) / 2 along one axis.
KERNEL blur(const Neighbors* neighbors, const float* from, unsigned vertices, unsigned labels, unsigned lanes,
            float* to) {
  THREADS {
    EACH(item, Index(vertices) * labels) {
      const unsigned vertex = divide(item, labels), label = modulo(item, labels);
      const Neighbors beside = neighbors[vertex];
      const float previous = beside.previous >= 0 ? from[Index(beside.previous) * lanes + label] : 0.0F;
      const float next = beside.next >= 0 ? from[Index(beside.next) * lanes + label] : 0.0F;
      const Index at = Index(vertex) * lanes + label;
      to[at] = from[at] + 0.5F * (previous + next);
    }
  }
}

enum Compatibility { kPotts, kVector, kMatrix };

struct Term {
  const Entry* slices;         // points x corners
  const float* rows;           // blurred
  const float* factors;        // per point, or null for 1
  const float* compatibility;  // 1, labels, or labels x labels
  int corners, kind;
  float alpha;
  int unused;
};

// exp(x) for x <= 0, as exp_nonpositive() in ../src/vectors.inl.
DEVICE float exp_nonpositive(float x) {
  constexpr float kRounder = 12582912.0F, kLowest = -87.3F;
  const float clamped = x > kLowest ? x : kLowest;
  const float shifted = clamped * 1.44269504F + kRounder;
  const float n = shifted - kRounder;
  const float r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  float series = r * 0.00139336870F + 0.00836320501F;
  series = series * r + 0.0416664630F;
  series = series * r + 0.166665763F;
  series = series * r + 0.5F;
  const float mantissa = (series * r) * r + r + 1.0F;
  const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000U);
  return x > kLowest ? mantissa * power : 0.0F;
}

// One label of F = sum over the corners of a point.
DEVICE float filter_label(const Term& term, Index point, unsigned label, unsigned lanes) {
  const Entry* const entries = term.slices + point * term.corners;
  float sum = 0.0F;
  for (int c = 0; c < term.corners; ++c) {
    sum += (entries[c].weight * term.alpha) * term.rows[Index(entries[c].index) * lanes + label];
  }
  return sum;
}

DEVICE float factor_of(const Term& term, Index point) { return term.factors != nullptr ? term.factors[point] : 1.0F; }

// The sum of a row as Row::sum() in ../src/vectors.inl adds it, 32 labels at a time.
DEVICE float sum_row(const float* row, unsigned labels) {
  float total = 0.0F;
  for (unsigned block = 0; block < labels; block += 32) {
    const unsigned end = block + 32 < labels ? block + 32 : labels;
    float part[8] = {};
    for (unsigned first = block; first < end; first += 8) {
#pragma unroll
      for (unsigned j = 0; j < 8; ++j) {
        if (first + j < end) part[j] += row[first + j];
      }
    }
    total += ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  }
  return total;
}

// Q = softmax(-U + the messages of all terms) for a group of points: matrix terms come last, as on the CPU.
KERNEL update(const float* unary, const Term* terms, int term_count, unsigned points, unsigned labels, unsigned lanes,
              float* q) {
  constexpr unsigned kMostValues = 2048, kMostPoints = 64;
  SHARED float scores[kMostValues], filtered[kMostValues], most[kMostPoints], sums[kMostPoints];
  const unsigned stride = labels | 1;  // odd, so that rows begin in different banks
  const unsigned fitting = kMostValues / stride, group = fitting < kMostPoints ? fitting : kMostPoints;
  const Index first = Index(blockIdx.x) * group;
  const unsigned count = points - first < group ? unsigned(points - first) : group;
  const unsigned values = count * labels;
  THREADS {
    for (unsigned item = threadIdx.x; item < values; item += blockDim.x) {
      const unsigned i = item / labels, label = item % labels;
      float score = -unary[first * labels + item];
      for (int t = 0; t < term_count; ++t) {
        const Term& term = terms[t];
        if (term.kind == kMatrix) continue;
        const float message = filter_label(term, first + i, label, lanes) * factor_of(term, first + i);
        if (term.kind == kPotts) {
          score += term.compatibility[0] * message;
        } else {
          score -= term.compatibility[label] * message;
        }
      }
      scores[i * stride + label] = score;
    }
  }
  for (int t = 0; t < term_count; ++t) {
    const Term& term = terms[t];
    if (term.kind != kMatrix) continue;
    SYNCED {
      for (unsigned item = threadIdx.x; item < values; item += blockDim.x) {
        const unsigned i = item / labels, label = item % labels;
        filtered[i * stride + label] = filter_label(term, first + i, label, lanes);
      }
    }
    SYNCED {
      for (unsigned item = threadIdx.x; item < values; item += blockDim.x) {
        const unsigned i = item / labels, label = item % labels;
        const float factor = factor_of(term, first + i);
        float score = scores[i * stride + label];
        for (unsigned l = 0; l < labels; ++l) {
          score += (-factor * filtered[i * stride + l]) * term.compatibility[Index(l) * labels + label];
        }
        scores[i * stride + label] = score;
      }
    }
  }
  SYNCED {
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
      float highest = -3.0e38F;
      for (unsigned l = 0; l < labels; ++l) {
        highest = scores[i * stride + l] > highest ? scores[i * stride + l] : highest;
      }
      most[i] = highest;
    }
  }
  SYNCED {
    for (unsigned item = threadIdx.x; item < values; item += blockDim.x) {
      const unsigned i = item / labels, at = i * stride + item % labels;
      scores[at] = exp_nonpositive(scores[at] - most[i]);
    }
  }
  SYNCED {
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sums[i] = sum_row(scores + i * stride, labels);
  }
  SYNCED {
    for (unsigned item = threadIdx.x; item < values; item += blockDim.x) {
      const unsigned i = item / labels, label = item % labels;
      q[(first + i) * lanes + label] = scores[i * stride + label] / sums[i];
    }
  }
}

// ---- results --------------------------------------------------------------------------------------------------------

// marginals[label * points + point]
KERNEL write_marginals(const float* q, unsigned points, unsigned labels, unsigned lanes, float* marginals) {
  THREADS {
    EACH(item, Index(points) * labels) marginals[item] = q[Index(modulo(item, points)) * lanes + divide(item, points)];
  }
}

// The first label of the highest marginal; of two bytes each if there are more than 256 labels.
KERNEL write_labels(const float* q, unsigned points, unsigned labels, unsigned lanes, void* best_labels) {
  THREADS {
    EACH(point, points) {
      const float* const row = q + point * lanes;
      unsigned best = 0;
      for (unsigned l = 1; l < labels; ++l) best = row[l] > row[best] ? l : best;
      if (labels <= 256) {
        static_cast<unsigned char*>(best_labels)[point] = static_cast<unsigned char>(best);
      } else {
        static_cast<unsigned short*>(best_labels)[point] = static_cast<unsigned short>(best);
      }
    }
  }
}
