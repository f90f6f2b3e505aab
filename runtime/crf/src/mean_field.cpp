// The iteration of mean_field.h; all terms' splats run as one phase, and their blurs axis by axis side by side.
#include "mean_field.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace atrous {
namespace {

constexpr std::size_t kSplatChunk = 256;
constexpr std::size_t kSliceChunk = 32;
constexpr std::size_t kCachedShare = 16;  // entries a vertex from which on its row stays in the first-level cache
constexpr int kSettleAfter = 1;  // updates: the first decides most pixels

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Splits a phase over several lattices: item i of the phase is item i - first of the lattice it falls into.
template <class Count, class Work>
void share_terms(Team& team, int rank, std::size_t terms, const Count& count, const Work& work) {
  std::size_t total = 0;
  for (std::size_t t = 0; t < terms; ++t) total += count(t);
  team.share(rank, total, 1, [&](std::size_t item, std::size_t) {
    std::size_t t = 0;
    for (; item >= count(t); ++t) item -= count(t);
    work(t, item);
  });
}

}  // namespace

int padded_lanes(int labels) {
  const int multiple = labels <= 32 ? 4 : 32;
  return (labels + multiple - 1) / multiple * multiple;
}

MeanField::MeanField(std::shared_ptr<const PixelOrder> order, int labels, Storage storage, const Kernels& kernels,
                     int threads)
    : order_(std::move(order)),
      labels_(labels),
      lanes_(padded_lanes(labels)),
      storage_(storage),
      kernels_(kernels),
      threads_(threads) {}

std::size_t MeanField::bytes() const {
  std::size_t total = q_.bytes() + unary_.bytes();
  for (const auto& rows : rows_) total += rows.bytes();
  return total;
}

void MeanField::add_term(Term term) {
  const std::size_t lanes = static_cast<std::size_t>(lanes_), labels = static_cast<std::size_t>(labels_);
  std::vector<float> padded;
  if (term.kind == Compatibility::kPotts) {
    padded = term.values;
  } else {
    const std::size_t height = term.kind == Compatibility::kMatrix ? labels : 1;
    padded.assign(height * lanes, 0.0F);
    for (std::size_t y = 0; y < height; ++y) {
      std::copy_n(term.values.begin() + static_cast<std::ptrdiff_t>(y * labels), labels,
                  padded.begin() + static_cast<std::ptrdiff_t>(y * lanes));
    }
  }
  compatibilities_.push_back(std::move(padded));
  terms_.push_back(std::move(term));
}

// Allocates what is missing; everything keeps its place between runs.
void MeanField::prepare() {
  const std::size_t row_bytes = static_cast<std::size_t>(lanes_) * (storage_ == Storage::kHalf ? 2 : 4);
  q_.resize(points() * row_bytes);
  padding_.assign(static_cast<std::size_t>(lanes_), -1);
  std::fill_n(padding_.begin(), labels_, 0);
  rows_.resize(terms_.size());
  slice_terms_.clear();
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    const Lattice& lattice = *terms_[t].lattice;
    rows_[t].resize(lattice.vertices() * row_bytes);
    const std::size_t entries = points() * static_cast<std::size_t>(lattice.corners());
    slice_terms_.push_back({lattice.slices(), rows_[t].data(), lattice.factors(), lattice.corners(),
                            terms_[t].kind, compatibilities_[t].data(), lattice.vertices() * kCachedShare <= entries});
  }
}

void MeanField::make_scratch() {
  scratch_.resize(static_cast<std::size_t>(threads_));
  for (auto& scratch : scratch_) scratch.resize(static_cast<std::size_t>(lanes_) * (kRun + 1));
}

void MeanField::allocate_unary() {
  const std::size_t values = points() * static_cast<std::size_t>(labels_);
  if (unary_.size() == values + static_cast<std::size_t>(lanes_)) return;  // bands come from several threads at once
  unary_.resize(values + static_cast<std::size_t>(lanes_));
  std::fill_n(unary_.data() + values, lanes_, 0.0F);
}

UnaryRange MeanField::set_unary(const float* data, std::ptrdiff_t label_stride, std::ptrdiff_t point_stride,
                                std::size_t first, std::size_t count, UnaryKind kind, float cap,
                                std::vector<float>& gaps) {
  UnaryJob job{};
  job.data = data;
  job.label_stride = label_stride;
  job.point_stride = point_stride;
  job.first_source = first;
  job.kind = kind;
  job.cap = cap;
  return fill_unary(job, order_->run_at(first), order_->run_at(first + count), count < points() ? 1 : threads_, gaps);
}

UnaryRange MeanField::set_coarse_scores(const float* scores, std::size_t coarse_height, std::size_t coarse_width,
                                        std::size_t height, std::size_t width, float cap,
                                        std::vector<float>& gaps) {
  const std::size_t lanes = static_cast<std::size_t>(lanes_), labels = static_cast<std::size_t>(labels_);
  Buffer<float> padded(coarse_height * coarse_width * lanes);
  for (std::size_t cell = 0; cell < coarse_height * coarse_width; ++cell) {
    for (std::size_t l = 0; l < lanes; ++l) padded[cell * lanes + l] = scores[cell * labels + std::min(l, labels - 1)];
  }
  UnaryJob job{};
  job.kind = UnaryKind::kScores;
  job.cap = cap;
  job.coarse = padded.data();
  job.coarse_height = coarse_height;
  job.coarse_width = coarse_width;
  job.height = height;
  job.width = width;
  return fill_unary(job, 0, order_->runs(), threads_, gaps);
}

UnaryRange MeanField::fill_unary(UnaryJob job, std::size_t begin, std::size_t end, int threads,
                                 std::vector<float>& gaps) {
  allocate_unary();
  std::vector<UnaryRange> ranges(order_->runs());
  job.order = order_.get();
  job.labels = labels_;
  job.lanes = lanes_;
  job.rows = unary_.data();
  job.ranges = ranges.data();
  const std::size_t lanes = static_cast<std::size_t>(lanes_);
  std::vector<std::vector<float>> found(static_cast<std::size_t>(threads), std::vector<float>(lanes, 3.0e38F));
  std::vector<Buffer<float>> tiles(static_cast<std::size_t>(threads));
  run_team(threads, [&](Team& team, int rank) {
    Buffer<float>& tile = tiles[static_cast<std::size_t>(rank)];
    float* const own = found[static_cast<std::size_t>(rank)].data();
    team.share(rank, end - begin, kSliceChunk, [&](std::size_t from, std::size_t to) {
      tile.resize(lanes * kRun);
      kernels_.prepare(job, begin + from, begin + to, tile.data(), own);
    });
  });
  gaps.resize(static_cast<std::size_t>(labels_), 3.0e38F);
  for (std::size_t l = 0; l < gaps.size(); ++l) {
    for (const auto& own : found) gaps[l] = std::min(gaps[l], own[l]);
  }
  UnaryRange all = ranges[begin];
  for (std::size_t r = begin + 1; r < end; ++r) {
    all.lowest = std::min(all.lowest, ranges[r].lowest);
    all.highest = std::max(all.highest, ranges[r].highest);
    all.unusable += ranges[r].unusable;
  }
  return all;
}

void MeanField::read_unary(float* output) const {
  const std::size_t labels = static_cast<std::size_t>(labels_);
  for (std::size_t r = 0; r < order_->runs(); ++r) {
    const Run run = order_->run(r);
    for (std::size_t i = 0; i < static_cast<std::size_t>(order_->length(r)); ++i) {
      for (std::size_t l = 0; l < labels; ++l) output[l * points() + run.source + i] = unary_[(run.first + i) * labels + l];
    }
  }
}

void MeanField::restart(int labels) {
  labels_ = labels;
  lanes_ = padded_lanes(labels);
  unary_.clear();
  q_.clear();
  rows_.clear();
  scratch_.clear();
  clear_terms();
}

void MeanField::keep_labels(const std::vector<int>& kept) {
  const std::size_t before = static_cast<std::size_t>(labels_), after = kept.size();
  Buffer<float> all = std::move(unary_);
  restart(static_cast<int>(after));
  allocate_unary();
  run_team(threads_, [&](Team& team, int rank) {
    team.share(rank, points(), kSliceChunk * kRun, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const float* const from = all.data() + i * before;
        float* const to = unary_.data() + i * after;
        for (std::size_t l = 0; l < after; ++l) to[l] = from[kept[l]];
      }
    });
  });
}

SliceJob MeanField::slice_job(bool with_terms) {
  SliceJob job{};
  job.order = order_.get();
  job.unary = unary_.data();
  job.padding = padding_.data();
  job.terms = slice_terms_.data();
  job.term_count = with_terms ? static_cast<int>(slice_terms_.size()) : 0;
  job.labels = labels_;
  job.lanes = lanes_;
  job.points = points();
  return job;
}

void MeanField::slice(Team& team, int rank, const SliceJob& job) {
  float* const scratch = scratch_[static_cast<std::size_t>(rank)].data();
  team.share(rank, job.order->runs(), kSliceChunk, [&](std::size_t begin, std::size_t end) {
    kernels_.slice(job, storage_, begin, end, scratch);
  });
}

void MeanField::filter(Team& team, int rank, InferenceReport& report, const ActivePixels* active) {
  const double start = now();
  auto chunks = [&](std::size_t t) { return (terms_[t].lattice->vertices() + kSplatChunk - 1) / kSplatChunk; };
  share_terms(team, rank, terms_.size(), chunks, [&](std::size_t t, std::size_t chunk) {
    const Lattice& lattice = *terms_[t].lattice;
    SplatJob job{lattice.offsets(), lattice.splats(), lattice.gains(), q_.data(), rows_[t].data(), lanes_, nullptr};
    if (active != nullptr) {
      job.offsets = active->offsets(t);
      job.entries = active->splats(t);
      job.base = active->base(t);
    }
    kernels_.splat(job, storage_, chunk * kSplatChunk, std::min((chunk + 1) * kSplatChunk, lattice.vertices()));
  });
  const double splatted = now();
  std::size_t axes = 0;
  for (const Term& term : terms_) axes = std::max(axes, term.lattice->axes().size());
  for (std::size_t axis = 0; axis < axes; ++axis) {
    auto pieces = [&](std::size_t t) {
      const auto& all = terms_[t].lattice->axes();
      return axis < all.size() ? all[axis].pieces.size() - 1 : 0;
    };
    share_terms(team, rank, terms_.size(), pieces, [&](std::size_t t, std::size_t piece) {
      const BlurAxis& blur = terms_[t].lattice->axes()[axis];
      const BlurJob job{blur.chain.data(), rows_[t].data(), lanes_};
      kernels_.blur(job, storage_, blur.pieces[piece], blur.pieces[piece + 1]);
    });
  }
  if (rank == 0) {
    report.splat_s += splatted - start;
    report.blur_s += now() - splatted;
  }
}

std::vector<const Lattice*> MeanField::lattices() const {
  std::vector<const Lattice*> all;
  for (const Term& term : terms_) all.push_back(term.lattice.get());
  return all;
}

InferenceReport MeanField::run(const InferenceOptions& options, float* output, bool keep) {
  prepare();
  InferenceReport report;
  make_scratch();
  const bool counts = options.tolerance > 0.0;
  std::vector<std::uint16_t> best(counts ? points() : 0);
  std::vector<std::uint32_t> changed(counts ? order_->runs() : 0);
  const int iterations = options.iterations;
  if (options.in_place) {
    output = reinterpret_cast<float*>(q_.data());
    keep = false;
  }
  // The last pass writes the output directly: Q, read by the splat before it, is not needed any more.
  auto job_for = [&](bool with_terms, bool last) {
    SliceJob job = slice_job(with_terms);
    const bool may_be_last = last || counts || options.cancelled != nullptr;
    job.output = may_be_last ? output : nullptr;
    job.q = last && !keep ? nullptr : q_.data();
    job.best = counts ? best.data() : nullptr;
    job.changed = counts ? changed.data() : nullptr;
    return job;
  };
  bool done = false;  // written by rank 0 between barriers, as is `active`
  const bool settles = options.settle > 0.0 && iterations > kSettleAfter;
  std::vector<std::uint8_t> settled(settles ? points() : 0);
  std::unique_ptr<ActivePixels> active;
  run_team(threads_, [&](Team& team, int rank) {
    const double start = now();
    if (!options.warm || iterations == 0) slice(team, rank, job_for(false, iterations == 0));
    if (rank == 0) report.start_s = now() - start;
    for (int i = 0; i < iterations && !done && !team.failed(); ++i) {
      filter(team, rank, report, active.get());
      const double filtered = now();
      const bool settling = settles && i + 1 == kSettleAfter;
      SliceJob job = job_for(true, i + 1 == iterations);
      if (active != nullptr) job.order = &active->order();
      if (settling) {
        job.settled = settled.data();
        job.settle = static_cast<float>(options.settle);
        job.output = output;  // what settles is not visited again
      }
      slice(team, rank, job);
      team.alone(rank, [&] {
        report.slice_s += now() - filtered;
        report.iterations = i + 1;
        if (counts) {
          std::size_t total = 0;
          for (const std::uint32_t count : changed) total += count;
          report.changed = static_cast<double>(total) / static_cast<double>(points());
          if (i > 0 && report.changed <= options.tolerance) done = true;
        }
        if (options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed)) {
          report.cancelled = true;
          done = true;
        }
        if (settling) {
          active = std::make_unique<ActivePixels>(*order_, lattices(), settled, lanes_, storage_);
          report.settled = static_cast<double>(std::count(settled.begin(), settled.end(), 1)) / static_cast<double>(points());
          changed.assign(counts ? active->order().runs() : 0, 0);
        }
      });
      if (settling && !team.failed()) active->gather(team, rank, kernels_, q_.data());
    }
  });
  return report;
}

void MeanField::load_marginals(const float* values, std::ptrdiff_t label_stride, std::ptrdiff_t point_stride) {
  prepare();
  const std::size_t lanes = static_cast<std::size_t>(lanes_);
  run_team(threads_, [&](Team& team, int rank) {
    std::vector<float> row(lanes, 0.0F);
    team.share(rank, order_->runs(), kSliceChunk, [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        const Run run = order_->run(r);
        for (int i = 0; i < order_->length(r); ++i) {
          const float* const from = values + (static_cast<std::ptrdiff_t>(run.source) + i) * point_stride;
          for (int l = 0; l < labels_; ++l) row[static_cast<std::size_t>(l)] = from[l * label_stride];
          kernels_.store_row(row.data(), q_.data(), run.first + static_cast<std::size_t>(i), lanes_, storage_);
        }
      }
    });
  });
}

double MeanField::kl_divergence() {
  prepare();
  make_scratch();
  std::vector<double> energy(order_->runs());
  InferenceReport report;
  run_team(threads_, [&](Team& team, int rank) {
    filter(team, rank, report);
    SliceJob job = slice_job(true);
    job.q = q_.data();
    job.energy = energy.data();
    slice(team, rank, job);
  });
  double total = 0.0;
  for (const double part : energy) total += part;
  return total;
}

}  // namespace atrous
