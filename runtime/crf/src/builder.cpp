// Builds a lattice in parallel phases; for any number of threads, ids follow the first touch in storage order.
#include "lattice.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "vertex_table.h"

namespace atrous {
namespace {

constexpr std::size_t kPieceLength = 2048;
constexpr std::size_t kPointChunk = 1024;
constexpr std::size_t kLookAhead = 32;

// The simplices around one run of pixels.
class Simplices {
 public:
  explicit Simplices(const KeyLayout& layout)
      : layout_(layout),
        words_(layout.words()),
        features_(std::make_unique<float[][kRun]>(layout.dimensions)),
        weights_(std::make_unique<float[][kRun]>(layout.dimensions + 1)),
        keys_(std::make_unique<std::uint64_t[][kRun]>((layout.dimensions + 1) * words_)) {}

  // To be filled before embed(): one row for each dimension, 0 at first.
  auto* features() { return features_.get(); }
  void embed(const Kernels& kernels, const std::vector<float>& scale) {
    if (!kernels.embed(layout_, scale.data(), features_.get(), weights_.get(), keys_.get())) {
      throw std::range_error("a feature is not a finite number");
    }
  }
  float weight(std::size_t pixel, std::size_t corner) const { return weights_[corner][pixel]; }
  // Valid until the next call.
  const std::uint64_t* key(std::size_t pixel, std::size_t corner) {
    if (words_ == 1) return &keys_[corner][pixel];
    for (std::size_t w = 0; w < words_; ++w) key_[w] = keys_[corner * words_ + w][pixel];
    return key_;
  }

 private:
  const KeyLayout& layout_;
  std::size_t words_;
  std::unique_ptr<float[][kRun]> features_, weights_;
  std::unique_ptr<std::uint64_t[][kRun]> keys_;
  std::uint64_t key_[kLongestKeyWords];
};

}  // namespace

class Lattice::Builder {
 public:
  Builder(Lattice& lattice, const Features& features, const std::uint8_t* mask, const Kernels& kernels, int parts)
      : lattice_(lattice),
        features_(features),
        mask_(mask),
        kernels_(kernels),
        order_(*lattice.order_),
        scale_(elevation_scale(features.dimensions)),
        layout_(features, scale_),
        parts_(parts),
        tables_(parts_),
        renamed_(parts_),
        counts_(parts_) {}

  void run(Team& team, int rank) {
    team.share(rank, parts_, 1, [&](std::size_t part, std::size_t) { touch(part); });
    team.alone(rank, [&] { merge(); });
    team.share(rank, parts_, 1, [&](std::size_t part, std::size_t) { count(part); });
    team.alone(rank, [&] { offset(); });
    team.share(rank, parts_, 1, [&](std::size_t part, std::size_t) { sort(part); });
    team.share(rank, lattice_.corners_, 1, [&](std::size_t axis, std::size_t) { link(axis); });
    team.alone(rank, [&] { tables_.clear(); });
    normalize(team, rank);
  }

 private:
  // Parts are whole bands, so that an earlier part is earlier in storage order and in source order.
  std::size_t first_run(std::size_t part) const {
    const std::size_t band = order_.band(), points = order_.points();
    const std::size_t bands = (points + band - 1) / band;
    return order_.run_at(std::min(bands * part / parts_ * band, points));
  }
  std::size_t first_entry(std::size_t part) const {
    const std::size_t run = first_run(part);
    return (run < order_.runs() ? order_.run(run).first : order_.points()) * lattice_.corners_;
  }

  // Embeds the pixels of one part and numbers the vertices they touch, within the part.
  void touch(std::size_t part) {
    const std::size_t corners = lattice_.corners_;
    const std::size_t first_of_part = first_entry(part), end_of_part = first_entry(part + 1);
    const std::size_t last = first_run(part + 1);
    // An estimate: there are 0.07 to 1 vertices per pixel, and a table that is too large costs more than growing it.
    const std::size_t expected = (end_of_part - first_of_part) / corners / 8;
    tables_[part] = std::make_unique<VertexTable>(scratch_, layout_.words(), expected);
    VertexTable& table = *tables_[part];
    Simplices simplices(layout_);
    for (std::size_t r = first_run(part); r < last; ++r) {
      const Run run = order_.run(r);
      features_.fill(run.source, run.length, simplices.features());
      simplices.embed(kernels_, scale_);
      const std::size_t first = run.first * corners;
      if (table.is_full(run.length * corners)) {
        const std::size_t sum = extrapolate(table.size(), first_of_part, first, end_of_part);
        table.reserve(std::max(sum, table.size() + run.length * corners));
      }
      if (layout_.words() == 1) {
        number<true>(run, table, simplices);
      } else {
        number<false>(run, table, simplices);
      }
    }
  }

  // Writes the entries of one run, corner by corner: neighboring pixels often share a vertex.
  template <bool OneWord>
  void number(const Run& run, VertexTable& table, Simplices& simplices) {
    const std::size_t corners = lattice_.corners_;
    const VertexTable::View<OneWord> view(table);
    Entry* const entries = &lattice_.slices_[run.first * corners];
    const std::uint8_t* const mask = mask_ != nullptr ? mask_ + run.source : nullptr;
    std::uint64_t hashes[2][kRun];
    const auto look_ahead = [&](std::size_t q) {
      for (std::size_t i = 0; i < run.length; ++i) {
        view.prefetch(hashes[q % 2][i] = view.hash(simplices.key(i, q)));
      }
    };
    look_ahead(0);
    for (std::size_t q = 0; q < corners; ++q) {
      if (q + 1 < corners) look_ahead(q + 1);
      std::uint32_t id = kAbsent;
      for (std::size_t i = 0; i < run.length; ++i) {
        if (mask != nullptr && mask[i] == 0) {
          entries[i * corners + q] = {kAbsent, 0.0F};
          id = kAbsent;
          continue;
        }
        const std::uint64_t hash = hashes[q % 2][i];
        const bool same = OneWord && id != kAbsent && hash == hashes[q % 2][i - 1];
        if (!same) id = view.find_or_insert(simplices.key(i, q), hash);
        entries[i * corners + q] = {id, simplices.weight(i, q)};
      }
    }
  }

  // The number of vertices at entry `last` if there were `seen` from `first` to `now` and the rate stays.
  static std::size_t extrapolate(std::size_t seen, std::size_t first, std::size_t now, std::size_t last) {
    if (now == first) return seen;
    const double rate = static_cast<double>(seen) * static_cast<double>(last - first);
    return static_cast<std::size_t>(rate / static_cast<double>(now - first));
  }

  // Gives the vertices of later parts their global ids; part 0 keeps its own.
  void merge() {
    VertexTable& all = *tables_[0];
    const std::size_t words = layout_.words();
    for (std::size_t part = 1; part < parts_; ++part) {
      const VertexTable& own = *tables_[part];
      Buffer<std::uint32_t>& names = renamed_[part];
      names = scratch_.array<std::uint32_t>(own.size());
      for (std::size_t v = 0; v < own.size(); ++v) {
        if (v + kLookAhead < own.size()) all.prefetch(hash_key(own.key(v + kLookAhead), words));
        names[v] = all.find_or_insert(own.key(v), hash_key(own.key(v), words));
      }
      tables_[part].reset();
    }
    // If every pixel is masked, the padding is the one simplex that entries can refer to.
    if (order_.points() % 4 != 0 || all.size() == 0) touch_padding(all);
    lattice_.vertices_ = all.size();
  }

  // The reference embeds zero features for the pixels missing from its last group of four: their vertices have no
  // weight but pass blur on.
  void touch_padding(VertexTable& all) {
    Simplices simplices(layout_);
    simplices.embed(kernels_, scale_);
    for (std::size_t q = 0; q < lattice_.corners_; ++q) {
      const std::uint64_t* const key = simplices.key(0, q);
      all.find_or_insert(key, hash_key(key, layout_.words()));
    }
  }

  void count(std::size_t part) {
    Buffer<std::uint32_t>& counts = counts_[part];
    counts = scratch_.array<std::uint32_t>(lattice_.vertices_);
    std::fill_n(counts.data(), counts.size(), 0U);
    const bool rename = part > 0;
    const std::size_t last = first_entry(part + 1);
    for (std::size_t e = first_entry(part); e < last; ++e) {
      Entry& entry = lattice_.slices_[e];
      if (entry.index == kAbsent) {
        entry.index = 0;
        entry.weight = kIgnored;
        continue;
      }
      if (rename) entry.index = renamed_[part][entry.index];
      ++counts[entry.index];
    }
  }

  // Turns the parts' counts into the position of each part's first pixel at each vertex.
  void offset() {
    lattice_.offsets_ = Buffer<std::uint32_t>(lattice_.vertices_ + 1);
    std::uint32_t total = 0;
    for (std::size_t v = 0; v < lattice_.vertices_; ++v) {
      lattice_.offsets_[v] = total;
      for (std::size_t part = 0; part < parts_; ++part) {
        const std::uint32_t own = counts_[part][v];
        counts_[part][v] = total;
        total += own;
      }
    }
    lattice_.offsets_[lattice_.vertices_] = total;
    lattice_.splats_ = Buffer<Entry>(total);
  }

  void sort(std::size_t part) {
    Buffer<std::uint32_t>& next = counts_[part];
    const std::size_t corners = lattice_.corners_;
    for (const std::uint32_t r : order_.by_source(first_run(part), first_run(part + 1))) {
      const Run run = order_.run(r);
      Entry* entry = &lattice_.slices_[run.first * corners];
      for (std::size_t e = 0; e < run.length * corners; ++e) {
        __builtin_prefetch(&lattice_.splats_[next[entry[e].index]], 1, 3);
      }
      for (std::uint32_t pixel = run.first; pixel < run.first + run.length; ++pixel) {
        for (std::size_t q = 0; q < corners; ++q, ++entry) {
          if (entry->weight == kIgnored) {
            entry->weight = 0.0F;
            continue;
          }
          lattice_.splats_[next[entry->index]++] = {pixel, entry->weight};
        }
      }
    }
    next.clear();
  }

  // next[v] = the neighbor of v along the axis; returns the number of neighbors.
  template <bool OneWord>
  std::size_t find_next(std::size_t axis, std::uint32_t* next, std::uint8_t* has_previous) {
    const VertexTable::View<OneWord> table(*tables_[0]);
    const std::size_t vertices = lattice_.vertices_, words = OneWord ? 1 : layout_.words();
    std::uint64_t delta[kLongestKeyWords];
    layout_.step(static_cast<int>(axis), delta);
    std::vector<std::uint64_t> ahead(words * kLookAhead);
    std::uint64_t hashes[kLookAhead];
    std::size_t linked = 0;
    for (std::size_t v = 0; v < vertices + kLookAhead; ++v) {
      std::uint64_t* const key = &ahead[v % kLookAhead * words];
      std::uint64_t& hash = hashes[v % kLookAhead];
      if (v >= kLookAhead) {
        const std::uint32_t found = table.find(key, hash);
        next[v - kLookAhead] = found;
        has_previous[std::min<std::size_t>(found, vertices)] = 1;
        linked += found != kAbsent ? 1 : 0;
      }
      if (v < vertices) {
        const std::uint64_t* const own = tables_[0]->key(v);
        for (std::size_t w = 0; w < words; ++w) key[w] = own[w] + delta[w];
        hash = table.hash(key);
        table.prefetch(hash);
      }
    }
    return linked;
  }

  // Links the vertices of one axis into chains, each as long as possible, in order of their first vertices.
  void link(std::size_t axis) {
    const std::size_t vertices = lattice_.vertices_;
    Buffer<std::uint32_t> next = scratch_.array<std::uint32_t>(vertices);
    Buffer<std::uint8_t> has_previous = scratch_.array<std::uint8_t>(vertices + 1);  // the last is for absent neighbors
    std::fill_n(has_previous.data(), vertices + 1, std::uint8_t{0});
    const std::size_t linked = layout_.words() == 1 ? find_next<true>(axis, next.data(), has_previous.data())
                                                    : find_next<false>(axis, next.data(), has_previous.data());
    Buffer<std::uint32_t> heads = scratch_.array<std::uint32_t>(vertices + 1);
    std::size_t head_count = 0;
    for (std::size_t v = 0; v < vertices; ++v) {
      heads[head_count] = static_cast<std::uint32_t>(v);
      head_count += static_cast<int>(next[v] != kAbsent) & static_cast<int>(has_previous[v] == 0);  // without a branch
    }
    BlurAxis& out = lattice_.axes_[axis];
    out.chain = Buffer<std::uint32_t>(linked + head_count);
    out.pieces = {0};
    std::size_t at = 0;
    for (std::size_t h = 0; h < head_count; ++h) {
      for (std::uint32_t member = heads[h]; member != kAbsent; member = next[member]) out.chain[at++] = member * 2;
      ++out.chain[at - 1];  // marks the end
      if (at - out.pieces.back() >= kPieceLength) out.pieces.push_back(static_cast<std::uint32_t>(at));
    }
    if (out.pieces.back() != at) out.pieces.push_back(static_cast<std::uint32_t>(at));
  }

  // Measures n = lattice(1) by one scalar filter, and multiplies alpha into the slice weights.
  void normalize(Team& team, int rank) {
    const std::size_t points = order_.points(), corners = lattice_.corners_;
    const float alpha = 1.0F / (1.0F + std::ldexp(1.0F, 1 - static_cast<int>(corners)));
    const bool measures = lattice_.normalization_ != Normalization::kNone;
    if (measures) {
      team.alone(rank, [&] {
        mass_ = scratch_.array<float>(lattice_.vertices_);
        lattice_.norms_ = Buffer<float>(points + kRun);
      });
      lattice_.filter_ones(team, rank, nullptr, mass_.data());
    }
    team.share(rank, points, kPointChunk, [&](std::size_t begin, std::size_t end) {
      if (measures) measure(begin, end, alpha);
      for (std::size_t e = begin * corners; e < end * corners; ++e) lattice_.slices_[e].weight *= alpha;
    });
  }

  // norms = 1 / n, or its root.
  void measure(std::size_t begin, std::size_t end, float alpha) {
    const std::size_t corners = lattice_.corners_;
    float* const norms = lattice_.norms_.data();
    for (std::size_t i = begin; i < end; ++i) {
      const Entry* const entries = &lattice_.slices_[i * corners];
      float sum = 0.0F;
      for (std::size_t q = 0; q < corners; ++q) sum += entries[q].weight * mass_[entries[q].index] * alpha;
      norms[i] = sum;
    }
    if (lattice_.normalization_ == Normalization::kSymmetric) {
      for (std::size_t i = begin; i < end; ++i) norms[i] = static_cast<float>(1.0 / std::sqrt(norms[i] + 1e-20));
    } else {
      for (std::size_t i = begin; i < end; ++i) norms[i] = static_cast<float>(1.0 / (norms[i] + 1e-20));
    }
  }

  static constexpr float kIgnored = -1.0e30F;  // weight of a masked pixel until sort() resets it

  Lattice& lattice_;
  const Features& features_;
  const std::uint8_t* mask_;
  const Kernels& kernels_;
  const PixelOrder& order_;
  std::vector<float> scale_;
  KeyLayout layout_;
  std::size_t parts_;
  Scratch scratch_;
  std::vector<std::unique_ptr<VertexTable>> tables_;
  std::vector<Buffer<std::uint32_t>> renamed_;
  std::vector<Buffer<std::uint32_t>> counts_;
  Buffer<float> mass_;
};

Lattice::Lattice(std::shared_ptr<const PixelOrder> order, const Features& features, Normalization normalization,
                 const std::uint8_t* mask, const Kernels& kernels, int threads)
    : order_(std::move(order)), normalization_(normalization), corners_(features.dimensions + 1) {
  const std::size_t entries = order_->points() * corners_;
  if (entries > 0x7fffffffULL) {
    throw std::length_error(std::to_string(order_->points()) + " points with " + std::to_string(corners_) +
                            " corners each exceed the 2^31 entries of a lattice");
  }
  slices_ = Buffer<Entry>(entries);
  axes_.resize(corners_);
  Builder builder(*this, features, mask, kernels, threads);
  run_team(threads, [&](Team& team, int rank) { builder.run(team, rank); });
}

}  // namespace atrous
