// Mean-field inference: the marginals Q, the terms, and the iteration splat -> blur -> slice + softmax.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels.h"
#include "lattice.h"
#include "memory.h"
#include "order.h"
#include "settled.h"
#include "threads.h"

namespace atrous {

struct Term {
  std::shared_ptr<const Lattice> lattice;
  Compatibility kind;
  std::vector<float> values;  // 1, labels, or labels x labels (already symmetric)
};

struct InferenceOptions {
  int iterations = 0;
  double tolerance = 0.0;  // stop once at most this fraction of the labels changed; 0 runs all iterations
  double settle = 0.0;     // after one update, freeze pixels with a marginal above it; 0 freezes none
  bool warm = false;       // start from the current marginals instead of the unary's softmax
  bool keep = true;        // keep the marginals for a warm start and kl_divergence()
  const std::atomic<bool>* cancelled = nullptr;
};

struct InferenceReport {
  int iterations = 0;
  bool cancelled = false;
  double settled = 0.0;           // fraction of frozen pixels
  std::optional<double> changed;  // fraction of labels changed by the last iteration, if counted
  double splat_s = 0.0, blur_s = 0.0, slice_s = 0.0, start_s = 0.0;
};

class MeanField {
 public:
  MeanField(std::shared_ptr<const PixelOrder> order, std::size_t labels, Storage storage, const Kernels& kernels,
            int threads);

  std::size_t points() const { return order_->points(); }
  std::size_t labels() const { return labels_; }
  const Kernels& kernels() const { return kernels_; }
  std::size_t bytes() const;

  void add_term(Term term);
  void clear_terms() {
    terms_.clear();
    compatibilities_.clear();
  }
  // Reads the energies or scores of the `count` source points from `first` on (whole bands: see PixelOrder::run_at) and
  // returns their range. Bands shorter than the image are read by the calling thread alone, so several threads may read
  // several bands. Lowers `gaps` (one per label) to each label's least distance above a pixel's best energy.
  UnaryRange set_unary(const float* data, std::ptrdiff_t label_stride, std::ptrdiff_t point_stride, std::size_t first,
                       std::size_t count, UnaryKind kind, float cap, std::vector<float>& gaps);
  // The same from scores on a coarser grid, for an image of this width.
  UnaryRange set_coarse_scores(const CoarseGrid& grid, std::size_t width, float cap, std::vector<float>& gaps);
  // Writes the energies, labels x points in the caller's order.
  void read_unary(float* output) const;
  // Starts over with `labels` labels: without a unary, terms and marginals.
  void restart(std::size_t labels);
  // Drops all labels but `kept` (ascending), and all terms.
  void keep_labels(const std::vector<std::size_t>& kept);
  void allocate_unary();
  bool has_unary() const { return unary_.size() > 0; }

  // Returns labels x points float marginals in the caller's order, perhaps with unused memory behind them.
  Buffer<unsigned char> run(const InferenceOptions& options, InferenceReport& report);
  // Replaces the current marginals by `values` (labels x points).
  void load_marginals(const float* values, std::ptrdiff_t label_stride, std::ptrdiff_t point_stride);
  // The relative monitor of the reference: sum Q log Q + U Q + Q C(F(Q)), no factor 1/2, no log Z.
  double kl_divergence();

 private:
  UnaryRange fill_unary(UnaryJob job, std::size_t begin, std::size_t end, int threads, std::vector<float>& gaps);
  // Lanes of the rows in which the unary is read: whole vectors, also where rows of two labels have 2 lanes.
  std::size_t tile_lanes() const { return lanes_ < 4 ? 4 : lanes_; }
  void prepare();
  void prepare_gained(bool wanted);
  void make_scratch();
  std::vector<const Lattice*> lattices() const;
  void filter(Team& team, int rank, InferenceReport& report, const ActivePixels* active = nullptr);
  void slice(Team& team, int rank, const SliceJob& job);
  SliceJob slice_job(bool with_terms);

  std::shared_ptr<const PixelOrder> order_;
  std::size_t labels_;
  std::size_t lanes_;
  Storage storage_;
  const Kernels& kernels_;
  int threads_;
  std::vector<Term> terms_;
  Buffer<float> unary_;  // energies in storage order, points x labels, then zeros: reads are one row of lanes long
  std::vector<std::int32_t> padding_;  // see SliceJob
  Buffer<unsigned char> q_;
  std::vector<Buffer<unsigned char>> rows_;
  std::vector<SliceTerm> slice_terms_;
  std::vector<Buffer<float>> gained_;  // of each term with gains, where rows are pairs of floats
  std::vector<GainedTerm> gained_terms_;
  std::vector<std::vector<float>> compatibilities_;
  std::vector<Buffer<float>> scratch_;
};

}  // namespace atrous
