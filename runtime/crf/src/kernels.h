// The inner loops, as jobs: compiled once per instruction set from kernels.cpp, chosen at run time by dispatch.cpp.
//
// All data are rows of labels: `lanes` floats, 2 for up to two labels, else labels padded to a multiple of 4 with exact
// zeros, in explicit vectors.
// The loops read rows at random from arrays of tens of megabytes; their cost is memory latency and bandwidth, so each
// loop prefetches the rows it will need and touches each row once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embedding.h"
#include "order.h"

namespace atrous {

struct Entry {
  std::uint32_t index;  // a vertex (of a pixel) or a pixel (of a vertex)
  float weight;
};

// Row storage. Arithmetic is always float.
enum class Storage { kFloat, kHalf };

inline std::size_t row_bytes(std::size_t lanes, Storage storage) { return lanes * (storage == Storage::kHalf ? 2 : 4); }

// A[v] = sum over the pixels of vertex v, ascending: weight * (gain[pixel] * Q[pixel]).
struct SplatJob {
  const std::uint32_t* offsets;  // vertices + 1
  const Entry* entries;
  const float* gains;  // per pixel, or null for 1
  const void* q;       // pixels x lanes
  void* rows;          // vertices x lanes
  std::size_t lanes;
  const void* base;  // rows the sums start from, or null for 0
};

// Along one axis, in place: A[v] += (A[previous] + A[next]) / 2 on every chain of neighbors.
struct BlurJob {
  const std::uint32_t* chain;  // vertex * 2 + (1 at the end of a chain)
  void* rows;
  std::size_t lanes;
};

enum class Compatibility { kPotts, kVector, kMatrix };

// One pairwise term in slice: message -= C(factor[i] * sum_q weight * A[vertex]).
struct SliceTerm {
  const Entry* entries;  // pixels x corners
  const void* rows;
  const float* factor;  // per pixel, or null for 1
  std::size_t corners;
  Compatibility kind;
  const float* compatibility;  // Potts: 1 value; vector: lanes; matrix: lanes x lanes
  bool stays_cached;           // enough pixels share each vertex that its row needs no prefetch
};

// kScores s are the energies min(logsumexp(s) - s, cap); kLogarithm x of probabilities max(-x, 0).
enum class UnaryKind { kEnergy = 0, kScores = 1, kLogarithm = 2 };

constexpr float kPaddingEnergy = 1.0e30F;  // of the padding lanes, so that they never win

struct UnaryRange {
  float lowest, highest;   // of the values given
  std::uint32_t unusable;  // number of NaN or infinite values (padding lanes may count twice)
};

// Scores on a coarser grid, height x width x labels, upsampled with aligned corners to the padded size; the image is
// the upper left part of that.
struct CoarseGrid {
  const float* scores;
  std::size_t height, width, padded_height, padded_width;
};

// Reads value(label l, source point i) = data[l * label_stride + (i - first_source) * point_stride] into rows in
// storage order.
struct UnaryJob {
  const PixelOrder* order;
  const float* data;
  std::ptrdiff_t label_stride;
  std::ptrdiff_t point_stride;
  std::size_t first_source;
  UnaryKind kind;
  float cap;
  std::size_t labels;
  std::size_t lanes;
  float* rows;         // points x labels
  UnaryRange* ranges;  // per run
  CoarseGrid coarse;   // read instead of `data` if it has scores; its cells are `lanes` floats long
  std::size_t width;   // of the image, if `coarse` is read
};

// Gain times Q of one term, for its splat: pairs of floats, which are multiplied faster here than once per vertex.
struct GainedTerm {
  const float* gain;  // per pixel, then kRun floats of any value
  float* q;           // pixels x 2
};

struct SliceJob {
  const PixelOrder* order;
  const float* unary;           // energies, points x labels, in storage order; reads go up to one row past the end
  const std::int32_t* padding;  // per lane: 0 for a label, -1 for padding
  const SliceTerm* terms;
  std::size_t term_count;
  std::size_t labels;
  std::size_t lanes;
  void* q;                 // next Q, points x lanes; null when only `output` is wanted
  float* output;           // label-major in the caller's order, or null
  std::size_t points;      // label stride of output
  std::uint16_t* best;     // per pixel in storage order: label of the maximum, or null
  std::uint32_t* changed;  // per run: number of labels that differ from `best` before, or null
  std::uint8_t* settled;   // per pixel in storage order: set where the largest q exceeds `settle`, or null
  float settle;
  double* energy;  // per run: sum q log q + U q - q m at the *current* q, which then stays; or null
  const std::vector<GainedTerm>* gained;  // written with q
};

struct Kernels {
  const char* name;
  // tile: kRun * lanes floats; gaps: per lane, lowered to the label's least distance above a pixel's best energy.
  void (*prepare)(const UnaryJob&, std::size_t first_run, std::size_t last_run, float* tile, float* gaps);
  void (*splat)(const SplatJob&, Storage, std::size_t begin, std::size_t end);
  void (*blur)(const BlurJob&, Storage, std::size_t begin, std::size_t end);
  // scratch: (kRun + 1) * lanes floats
  void (*slice)(const SliceJob&, Storage, std::size_t first_run, std::size_t last_run, float* scratch);
  // Writes one row of floats to row `index` of `rows`.
  void (*store_row)(const float* row, void* rows, std::size_t index, std::size_t lanes, Storage);
  // Embeds kRun pixels: weights[corner][pixel] and packed keys[corner * words + word][pixel] of the corners. Returns
  // false when a pixel falls outside of the layout (impossible for finite features within bounds).
  bool (*embed)(const KeyLayout&, const float* scale, const float (*features)[kRun], float (*weights)[kRun],
                std::uint64_t (*keys)[kRun]);
};

// The kernels ("portable", "avx2", "avx512" or "neon") that this processor runs, slowest first.
std::vector<const Kernels*> runnable_kernels();

}  // namespace atrous
