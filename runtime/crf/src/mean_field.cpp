// The iteration of mean_field.h; the splats of all terms are one phase, and so are their blurs along one axis.
#include "mean_field.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace atrous {
namespace {

constexpr std::size_t kSplatChunk = 256;
constexpr std::size_t kSliceChunk = 32;
constexpr std::size_t kCachedShare = 16;  // entries per vertex at which its row stays in the first-level cache
constexpr int kSettleAfter = 1;           // updates: the first decides most pixels

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::size_t padded_lanes(std::size_t labels) {
  if (labels <= 2) return 2;
  const std::size_t multiple = labels <= 32 ? 4 : 32;
  return (labels + multiple - 1) / multiple * multiple;
}

// Splits a phase over several lattices: counts items through all of them.
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

MeanField::MeanField(std::shared_ptr<const PixelOrder> order, std::size_t labels, Storage storage,
                     const Kernels& kernels, int threads)
    : order_(std::move(order)),
      labels_(labels),
      lanes_(padded_lanes(labels)),
      storage_(storage),
      kernels_(kernels),
      threads_(threads) {}

std::size_t MeanField::bytes() const {
  std::size_t total = q_.bytes() + unary_.bytes();
  for (const auto& rows : rows_) total += rows.bytes();
  for (const auto& gained : gained_) total += gained.bytes();
  return total;
}

void MeanField::add_term(Term term) {
  std::vector<float> padded = term.values;
  if (term.kind != Compatibility::kPotts) {
    const std::size_t height = term.values.size() / labels_;
    padded.assign(height * lanes_, 0.0F);
    for (std::size_t y = 0; y < height; ++y) std::copy_n(&term.values[y * labels_], labels_, &padded[y * lanes_]);
  }
  compatibilities_.push_back(std::move(padded));
  terms_.push_back(std::move(term));
}

// Allocates missing arrays; existing ones are reused between runs.
void MeanField::prepare() {
  q_.resize(points() * row_bytes(lanes_, storage_));
  padding_.assign(lanes_, -1);
  std::fill_n(padding_.begin(), labels_, 0);
  rows_.resize(terms_.size());
  slice_terms_.clear();
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    const Lattice& lattice = *terms_[t].lattice;
    rows_[t].resize(lattice.vertices() * row_bytes(lanes_, storage_));
    const bool stays_cached = lattice.vertices() * kCachedShare <= points() * lattice.corners();
    slice_terms_.push_back({lattice.slices(), rows_[t].data(), lattice.factors(), lattice.corners(), terms_[t].kind,
                            compatibilities_[t].data(), stays_cached});
  }
}

// Gain times Q is kept beside Q while a run starts from the unary.
void MeanField::prepare_gained(bool wanted) {
  gained_.resize(terms_.size());
  gained_terms_.clear();
  if (!wanted || lanes_ != 2 || storage_ != Storage::kFloat) return;
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    if (terms_[t].lattice->gains() == nullptr) continue;
    gained_[t].resize(points() * lanes_);
    gained_terms_.push_back({terms_[t].lattice->gains(), gained_[t].data()});
  }
}

void MeanField::make_scratch() {
  scratch_.resize(threads_);
  for (auto& scratch : scratch_) scratch.resize(lanes_ * (kRun + 1));
}

void MeanField::allocate_unary() {
  const std::size_t values = points() * labels_;
  if (unary_.size() == values + lanes_) return;  // several threads may be setting bands
  unary_.resize(values + lanes_);
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

UnaryRange MeanField::set_coarse_scores(const CoarseGrid& grid, std::size_t width, float cap,
                                        std::vector<float>& gaps) {
  const std::size_t lanes = tile_lanes(), cells = grid.height * grid.width;
  Buffer<float> rows(cells * lanes);
  for (std::size_t cell = 0; cell < cells; ++cell) {
    for (std::size_t l = 0; l < lanes; ++l) {
      rows[cell * lanes + l] = grid.scores[cell * labels_ + std::min(l, labels_ - 1)];
    }
  }
  UnaryJob job{};
  job.kind = UnaryKind::kScores;
  job.cap = cap;
  job.coarse = grid;
  job.coarse.scores = rows.data();
  job.width = width;
  return fill_unary(job, 0, order_->runs(), threads_, gaps);
}

UnaryRange MeanField::fill_unary(UnaryJob job, std::size_t begin, std::size_t end, int threads,
                                 std::vector<float>& gaps) {
  allocate_unary();
  std::vector<UnaryRange> ranges(order_->runs());
  job.order = order_.get();
  job.labels = labels_;
  job.lanes = tile_lanes();
  job.rows = unary_.data();
  job.ranges = ranges.data();
  std::vector<std::vector<float>> found(threads, std::vector<float>(job.lanes, 3.0e38F));
  run_team(threads, [&](Team& team, int rank) {
    Buffer<float> tile(job.lanes * kRun);
    team.share(rank, end - begin, kSliceChunk, [&](std::size_t from, std::size_t to) {
      kernels_.prepare(job, begin + from, begin + to, tile.data(), found[rank].data());
    });
  });
  gaps.resize(labels_, 3.0e38F);
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
  for (std::size_t r = 0; r < order_->runs(); ++r) {
    const Run run = order_->run(r);
    for (std::size_t i = 0; i < run.length; ++i) {
      const float* const from = unary_.data() + (run.first + i) * labels_;
      for (std::size_t l = 0; l < labels_; ++l) output[l * points() + run.source + i] = from[l];
    }
  }
}

void MeanField::restart(std::size_t labels) {
  labels_ = labels;
  lanes_ = padded_lanes(labels);
  unary_.clear();
  q_.clear();
  rows_.clear();
  gained_.clear();
  scratch_.clear();
  clear_terms();
}

void MeanField::keep_labels(const std::vector<std::size_t>& kept) {
  const std::size_t before = labels_, after = kept.size();
  const Buffer<float> all = std::move(unary_);
  restart(after);
  allocate_unary();
  run_team(threads_, [&](Team& team, int rank) {
    team.share(rank, points(), kSliceChunk * kRun, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const float* const from = all.data() + i * before;
        for (std::size_t l = 0; l < after; ++l) unary_[i * after + l] = from[kept[l]];
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
  job.term_count = with_terms ? slice_terms_.size() : 0;
  job.labels = labels_;
  job.lanes = lanes_;
  job.points = points();
  job.gained = &gained_terms_;
  return job;
}

void MeanField::slice(Team& team, int rank, const SliceJob& job) {
  team.share(rank, job.order->runs(), kSliceChunk, [&](std::size_t begin, std::size_t end) {
    kernels_.slice(job, storage_, begin, end, scratch_[rank].data());
  });
}

void MeanField::filter(Team& team, int rank, InferenceReport& report, const ActivePixels* active) {
  const double start = now();
  auto chunks = [&](std::size_t t) { return (terms_[t].lattice->vertices() + kSplatChunk - 1) / kSplatChunk; };
  share_terms(team, rank, terms_.size(), chunks, [&](std::size_t t, std::size_t chunk) {
    const Lattice& lattice = *terms_[t].lattice;
    SplatJob job{lattice.offsets(), lattice.splats(), lattice.gains(), q_.data(), rows_[t].data(), lanes_, nullptr};
    if (!gained_terms_.empty() && job.gains != nullptr) {
      job.q = gained_[t].data();
      job.gains = nullptr;
    }
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

Buffer<unsigned char> MeanField::run(const InferenceOptions& options, InferenceReport& report) {
  prepare();
  prepare_gained(!options.warm);
  make_scratch();
  const bool counts = options.tolerance > 0.0;
  std::vector<std::uint16_t> best(counts ? points() : 0);
  std::vector<std::uint32_t> changed(counts ? order_->runs() : 0);
  const int iterations = options.iterations;
  const bool may_stop = counts || options.cancelled != nullptr;
  // The last pass writes the output directly, over Q if possible: nothing reads Q after the splat before it. That saves
  // a second array and fresh pages.
  const bool in_place = !options.keep && !may_stop && options.settle == 0.0 && storage_ == Storage::kFloat;
  Buffer<unsigned char> own(in_place ? 0 : points() * labels_ * sizeof(float));
  float* const output = reinterpret_cast<float*>(in_place ? q_.data() : own.data());
  const auto job_for = [&](bool with_terms, bool last) {
    SliceJob job = slice_job(with_terms);
    job.output = last || may_stop ? output : nullptr;
    job.q = last && !options.keep ? nullptr : q_.data();
    job.best = counts ? best.data() : nullptr;
    job.changed = counts ? changed.data() : nullptr;
    return job;
  };
  bool done = false;  // written in alone(), as is `active`
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
        job.output = output;  // settled pixels are not visited again
      }
      slice(team, rank, job);
      team.alone(rank, [&] {
        report.slice_s += now() - filtered;
        report.iterations = i + 1;
        if (counts) {
          const double total = std::accumulate(changed.begin(), changed.end(), 0.0);
          report.changed = total / static_cast<double>(points());
          if (i > 0 && *report.changed <= options.tolerance) done = true;
        }
        if (options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed)) {
          report.cancelled = true;
          done = true;
        }
        if (settling) {
          active = std::make_unique<ActivePixels>(*order_, lattices(), settled, lanes_, storage_);
          const double frozen = std::accumulate(settled.begin(), settled.end(), 0.0);
          report.settled = frozen / static_cast<double>(points());
          changed.assign(counts ? active->order().runs() : 0, 0);
        }
      });
      if (settling && !team.failed()) active->gather(team, rank, kernels_, q_.data());
    }
  });
  return in_place ? std::move(q_) : std::move(own);
}

void MeanField::load_marginals(const float* values, std::ptrdiff_t label_stride, std::ptrdiff_t point_stride) {
  prepare();
  const auto labels = static_cast<std::ptrdiff_t>(labels_);
  run_team(threads_, [&](Team& team, int rank) {
    std::vector<float> row(lanes_, 0.0F);
    team.share(rank, order_->runs(), kSliceChunk, [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        const Run run = order_->run(r);
        for (std::uint32_t i = 0; i < run.length; ++i) {
          const float* const from = values + static_cast<std::ptrdiff_t>(run.source + i) * point_stride;
          for (std::ptrdiff_t l = 0; l < labels; ++l) row[l] = from[l * label_stride];
          kernels_.store_row(row.data(), q_.data(), run.first + i, lanes_, storage_);
        }
      }
    });
  });
}

double MeanField::kl_divergence() {
  prepare();
  prepare_gained(false);
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
  return std::accumulate(energy.begin(), energy.end(), 0.0);
}

}  // namespace atrous
