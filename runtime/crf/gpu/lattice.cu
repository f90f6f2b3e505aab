// The permutohedral lattice: keys of the vertices around each pixel, sorted, then numbered and linked.

// ---- lattice: from features to sorted keys --------------------------------------------------------------------------

constexpr int kMostDimensions = 64;
constexpr int kMostWords = 20;
constexpr int kMostAxes = 8;

// The packing of a vertex key, the first d coordinates, as KeyLayout in ../src/embedding.h.
struct Layout {
  int dimensions, words;
  float scale[kMostDimensions];
  int lowest[kMostDimensions], word[kMostDimensions], shift[kMostDimensions];
};

// As Features in ../src/embedding.h: free, or positions on a grid, then channels.
struct Features {
  unsigned points;
  int axes, channels;             // axes is 0 for free features
  unsigned grid[kMostAxes];       // slowest axis first
  float sigmas[kMostDimensions];  // fastest axis first, then channels
  const unsigned char* bytes;     // points x channels, or null
  const float* floats;            // points x channels, or dimensions x points if free
};

DEVICE float read_feature(const Features& features, unsigned pixel, int f) {
  if (pixel >= features.points) return 0.0F;  // padding
  if (features.axes == 0) return features.floats[Index(f) * features.points + pixel];
  if (f >= features.axes) {
    const Index at = Index(pixel) * features.channels + (f - features.axes);
    const float value = features.bytes != nullptr ? float(features.bytes[at]) : features.floats[at];
    return value / features.sigmas[f];
  }
  unsigned rest = pixel;
  for (int a = 0; a < f; ++a) rest /= features.grid[features.axes - 1 - a];
  return float(rest % features.grid[features.axes - 1 - f]) / features.sigmas[f];
}

// The simplex around one pixel: weights[corner], and keys[word * entries + corner]. See ../src/simplex.cpp.
template <int Dimensions>
DEVICE void embed_pixel(const Layout& layout, const Features& features, unsigned pixel, bool absent, float* weights,
                        Word* keys, Index entries) {
  constexpr int kMost = Dimensions != 0 ? Dimensions : kMostDimensions;
  constexpr int kWords = Dimensions != 0 ? (17 * Dimensions + 63) / 64 : kMostWords;
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest even integer
  const int d = Dimensions != 0 ? Dimensions : layout.dimensions;
  const float up = float(d + 1), down = 1.0F / up;
  float offset[kMost + 1], nearest[kMost + 1], sorted[kMost + 1];
  int rank[kMost + 1];
  float sum = 0.0F, excess = 0.0F;
  for (int j = d; j > 0; --j) {
    const float t = read_feature(features, pixel, j - 1) * layout.scale[j - 1];
    offset[j] = sum - float(j) * t;
    sum = sum + t;
  }
  offset[0] = sum;
  for (int j = 0; j <= d; ++j) {
    const float rounded = (offset[j] * down + kRounder) - kRounder;
    excess += rounded;
    nearest[j] = rounded * up;
    offset[j] = offset[j] - nearest[j];
    rank[j] = 0;
  }
  for (int j = 0; j <= d; ++j) {
    for (int k = j + 1; k <= d; ++k) {
      const bool less = offset[j] < offset[k];
      rank[j] += less ? 1 : 0;
      rank[k] += less ? 0 : 1;
    }
  }
  const int surplus = int(excess);
  for (int j = 0; j <= d; ++j) {
    const int raised = rank[j] + surplus;
    const int turn = raised > d ? -1 : raised < 0 ? 1 : 0;
    const float shift = float(turn) * up;
    nearest[j] += shift;
    rank[j] = raised + turn * (d + 1);
    rank[j] = rank[j] < 0 ? 0 : rank[j] > d ? d : rank[j];  // never needed for finite features
    sorted[rank[j]] = (offset[j] - shift) * down;
  }
  weights[0] = sorted[d] + (1.0F + (0.0F - sorted[0]));
  for (int q = 1; q <= d; ++q) weights[q] = sorted[d - q] - sorted[d - q + 1];

  Word key[kWords], ones[kWords];
  for (int w = 0; w < layout.words; ++w) key[w] = ones[w] = 0;
  for (int j = 0; j < d; ++j) {
    ones[layout.word[j]] += Word(1) << layout.shift[j];
    key[layout.word[j]] += Word(unsigned(int(nearest[j]) - layout.lowest[j])) << layout.shift[j];
  }
  for (int q = 0; q <= d; ++q) {
    if (absent || pixel >= features.points) weights[q] = 0.0F;
    // No vertex has all bits set: coordinates stay a whole step below their highest value.
    for (int w = 0; w < layout.words; ++w) keys[w * entries + q] = absent ? ~Word(0) : key[w];
    for (int w = 0; w < layout.words; ++w) key[w] += ones[w];
    for (int j = 0; j < d; ++j) {
      if (rank[j] == d - q) key[layout.word[j]] -= Word(d + 1) << layout.shift[j];
    }
  }
}

// Embeds the pixels, and behind them one pixel of zero features if there are more entries than theirs.
KERNEL embed(Layout layout, Features features, const unsigned char* mask, float* weights, Word* keys, Index entries,
             unsigned* order) {
  const int corners = layout.dimensions + 1;
  THREADS {
    EACH(pixel, entries / corners) {
      const Index first = pixel * corners;
      const bool absent = mask != nullptr && pixel < features.points && mask[pixel] == 0;
      for (int q = 0; q < corners; ++q) order[first + q] = unsigned(first + q);
      switch (layout.dimensions) {
        case 2: embed_pixel<2>(layout, features, pixel, absent, weights + first, keys + first, entries); break;
        case 5: embed_pixel<5>(layout, features, pixel, absent, weights + first, keys + first, entries); break;
        default: embed_pixel<0>(layout, features, pixel, absent, weights + first, keys + first, entries);
      }
    }
  }
}

// One pass of a stable radix sort: blocks of kSortThreads threads, each with kSortShare consecutive entries.
constexpr int kSortThreads = 128;
constexpr int kSortShare = 16;
constexpr int kDigits = 64;
constexpr int kSortStride = kSortThreads + 2;  // a row per digit, in other banks of shared memory

DEVICE Index first_of_share() { return (Index(blockIdx.x) * kSortThreads + threadIdx.x) * kSortShare; }
DEVICE Index end_of_share(Index entries) {
  const Index end = first_of_share() + kSortShare;
  return end < entries ? end : entries;
}
DEVICE int digit_of(const Word* keys, unsigned entry, int shift) { return int(keys[entry] >> shift) & (kDigits - 1); }

DEVICE void count_share(const Word* keys, int shift, const unsigned* order, Index entries, unsigned short* counts) {
  for (int digit = 0; digit < kDigits; ++digit) counts[digit * kSortStride + threadIdx.x] = 0;
  for (Index i = first_of_share(); i < end_of_share(entries); ++i) {
    ++counts[digit_of(keys, order[i], shift) * kSortStride + threadIdx.x];
  }
}

// places[digit * blocks + block] = number of the block's entries with the digit.
KERNEL count_digits(const Word* keys, int shift, const unsigned* order, Index entries, unsigned* places) {
  SHARED unsigned short counts[kDigits * kSortStride];
  THREADS { count_share(keys, shift, order, entries, counts); }
  SYNCED {
    if (threadIdx.x < kDigits) {
      unsigned total = 0;
      for (int t = 0; t < kSortThreads; ++t) total += counts[threadIdx.x * kSortStride + t];
      places[Index(threadIdx.x) * gridDim.x + blockIdx.x] = total;
    }
  }
}

// Moves the entries to `places`, the scanned counts.
KERNEL scatter_digits(const Word* keys, int shift, const unsigned* order, Index entries, const unsigned* places,
                      unsigned* sorted) {
  SHARED unsigned short counts[kDigits * kSortStride];
  THREADS { count_share(keys, shift, order, entries, counts); }
  SYNCED {
    if (threadIdx.x < kDigits) {
      unsigned short before = 0;
      for (int t = 0; t < kSortThreads; ++t) {
        const unsigned short own = counts[threadIdx.x * kSortStride + t];
        counts[threadIdx.x * kSortStride + t] = before;
        before += own;
      }
    }
  }
  SYNCED {
    for (Index i = first_of_share(); i < end_of_share(entries); ++i) {
      const int digit = digit_of(keys, order[i], shift);
      const Index place = places[Index(digit) * gridDim.x + blockIdx.x];
      sorted[place + counts[digit * kSortStride + threadIdx.x]++] = order[i];
    }
  }
}

// Replaces counts by the sum of those before; counts[count] becomes the total. One block.
KERNEL scan(unsigned* counts, Index count) {
  constexpr int kMostThreads = 1024;
  SHARED unsigned sums[2][kMostThreads];
  const Index share = (count + blockDim.x - 1) / blockDim.x;
  THREADS {
    unsigned sum = 0;
    for (Index i = threadIdx.x * share; i < (threadIdx.x + 1) * share && i < count; ++i) sum += counts[i];
    sums[0][threadIdx.x] = sum;
  }
  int now = 0;
  for (unsigned step = 1; step < blockDim.x; step *= 2, now ^= 1) {
    SYNCED {
      const unsigned t = threadIdx.x;
      sums[now ^ 1][t] = sums[now][t] + (t >= step ? sums[now][t - step] : 0);
    }
  }
  SYNCED {
    unsigned before = threadIdx.x > 0 ? sums[now][threadIdx.x - 1] : 0;
    for (Index i = threadIdx.x * share; i < (threadIdx.x + 1) * share && i < count; ++i) {
      const unsigned own = counts[i];
      counts[i] = before;
      before += own;
    }
    if (threadIdx.x == blockDim.x - 1) counts[count] = sums[now][threadIdx.x];
  }
}

// ---- lattice: vertices ----------------------------------------------------------------------------------------------

// Whether the sorted entry i is the first one of its vertex.
DEVICE bool begins_vertex(const Word* keys, int words, const unsigned* order, Index entries, Index i) {
  if (i == 0) return true;
  for (int w = 0; w < words; ++w) {
    if (keys[w * entries + order[i]] != keys[w * entries + order[i - 1]]) return true;
  }
  return false;
}

DEVICE unsigned count_vertices(const Word* keys, int words, const unsigned* order, Index entries) {
  unsigned count = 0;
  for (Index i = first_of_share(); i < end_of_share(entries); ++i) {
    count += begins_vertex(keys, words, order, entries, i) ? 1 : 0;
  }
  return count;
}

// counts[block] = number of vertices whose first entry is in the block.
KERNEL count_heads(const Word* keys, int words, const unsigned* order, Index entries, unsigned* counts) {
  SHARED unsigned own[kSortThreads];
  THREADS { own[threadIdx.x] = count_vertices(keys, words, order, entries); }
  SYNCED {
    if (threadIdx.x == 0) {
      unsigned total = 0;
      for (int t = 0; t < kSortThreads; ++t) total += own[t];
      counts[blockIdx.x] = total;
    }
  }
}

// Numbers the vertices, in the order of their keys. `before` has the scanned counts; entries of masked pixels, which
// follow all vertices, get vertex 0 with weight 0.
KERNEL number_vertices(const Word* keys, int words, const unsigned* order, Index entries, int corners, unsigned points,
                       const float* weights, const unsigned* before, unsigned vertices, unsigned* offsets,
                       Entry* splats, Entry* slices, Word* vertex_keys) {
  SHARED unsigned own[kSortThreads];
  THREADS { own[threadIdx.x] = count_vertices(keys, words, order, entries); }
  SYNCED {
    if (threadIdx.x == 0) {
      unsigned running = before[blockIdx.x];
      for (int t = 0; t < kSortThreads; ++t) {
        const unsigned count = own[t];
        own[t] = running;
        running += count;
      }
    }
  }
  SYNCED {
    unsigned seen = own[threadIdx.x];  // vertices that begin before this thread's share
    for (Index i = first_of_share(); i < end_of_share(entries); ++i) {
      const unsigned entry = order[i], pixel = entry / unsigned(corners);
      if (begins_vertex(keys, words, order, entries, i)) {
        if (seen <= vertices) offsets[seen] = unsigned(i);
        for (int w = 0; w < words && seen < vertices; ++w) {
          vertex_keys[Index(w) * vertices + seen] = keys[w * entries + entry];
        }
        ++seen;
      }
      if (i + 1 == entries && seen == vertices) offsets[vertices] = unsigned(entries);
      const bool present = seen <= vertices;
      slices[entry] = present ? Entry{seen - 1, weights[entry]} : Entry{0, 0.0F};
      splats[i] = {pixel < points ? pixel : 0, weights[entry]};  // the weight of padding is 0
    }
  }
}

KERNEL fill(int* values, int value, Index count) {
  THREADS { EACH(i, count) values[i] = value; }
}

// The vertex with a key, or -1.
DEVICE int find_vertex(const Word* keys, int words, unsigned vertices, const Word* wanted) {
  unsigned low = 0, high = vertices;
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    int w = words - 1;  // the sort ended with the last word
    while (w > 0 && keys[Index(w) * vertices + middle] == wanted[w]) --w;
    const Word key = keys[Index(w) * vertices + middle];
    if (key == wanted[w]) return int(middle);
    if (key < wanted[w]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return -1;
}

// neighbors[axis * vertices + vertex]; filled with -1 before.
KERNEL link(Layout layout, const Word* keys, unsigned vertices, Neighbors* neighbors) {
  THREADS {
    EACH(item, Index(vertices) * (layout.dimensions + 1)) {
      const int axis = int(divide(item, vertices));
      const unsigned vertex = modulo(item, vertices);
      Word wanted[kMostWords];
      for (int w = 0; w < layout.words; ++w) wanted[w] = keys[Index(w) * vertices + vertex];
      for (int i = 0; i < layout.dimensions; ++i) {
        const long long change = i == axis ? -layout.dimensions : 1;
        wanted[layout.word[i]] += Word(change) << layout.shift[i];
      }
      const int next = find_vertex(keys, layout.words, vertices, wanted);
      if (next >= 0) {
        neighbors[item].next = next;
        neighbors[item - vertex + next].previous = int(vertex);
      }
    }
  }
}

// norms[pixel] = 1 / n or its root, with n = lattice(1) from `mass`, the blurred rows of ones.
KERNEL measure_norms(const Entry* slices, const float* mass, int corners, unsigned points, float alpha, int is_root,
                     float* norms) {
  THREADS {
    EACH(pixel, points) {
      float sum = 0.0F;
      for (int q = 0; q < corners; ++q) {
        const Entry entry = slices[pixel * corners + q];
        sum += entry.weight * mass[entry.index] * alpha;
      }
      const double norm = sum + 1e-20;
      norms[pixel] = float(1.0 / (is_root ? sqrt(norm) : norm));
    }
  }
}
