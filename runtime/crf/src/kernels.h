// The inner loops, as jobs: compiled once per instruction set from kernels.cpp, chosen at run time by dispatch.cpp.
//
// Everything is a row of labels: `lanes` floats (labels padded to a multiple of 4 with exact zeros) held in explicit
// vectors. The loops move rows found at random in arrays of tens of megabytes; their cost is memory latency and
// bandwidth, so each loop prefetches the rows it will need and touches each row once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "embedding.h"
#include "order.h"

namespace atrous {

struct Entry {
  std::uint32_t index;  // a vertex (of a pixel) or a pixel (of a vertex)
  float weight;
};

// Row storage. Arithmetic is always float.
enum class Storage { kFloat, kHalf };

// A[v] = sum over the pixels of vertex v, ascending: weight * (gain[pixel] * Q[pixel]).
struct SplatJob {
  const std::uint32_t* offsets;  // vertices + 1
  const Entry* entries;
  const float* gains;  // per pixel, or null for 1
  const void* q;       // pixels x lanes
  void* rows;     // vertices x lanes
  int lanes;
  const void* base;  // rows to begin the sums with, or null for 0
};

// Along one axis, in place: A[v] += (A[previous] + A[next]) / 2 on every chain of neighbours.
struct BlurJob {
  const std::uint32_t* chain;  // vertex * 2 + (1 where a chain ends)
  void* rows;
  int lanes;
};

enum class Compatibility { kPotts, kVector, kMatrix };

// One pairwise term, as slice sees it: message -= C(factor[i] * sum_q weight * A[vertex]).
struct SliceTerm {
  const Entry* entries;  // pixels x corners
  const void* rows;
  const float* factor;  // per pixel, or null for 1
  int corners;
  Compatibility kind;
  const float* compatibility;  // Potts: 1 value; vector: lanes; matrix: lanes x lanes
  bool stays_cached;           // so many pixels share a vertex that its row need not be asked for ahead
};

// Scores s mean the energies min(logsumexp(s) - s, cap); logarithms of probabilities x mean max(-x, 0).
enum class UnaryKind { kEnergy = 0, kScores = 1, kLogarithm = 2 };

constexpr float kPaddingEnergy = 1.0e30F;  // of the padding lanes: never likely

struct UnaryRange {
  float lowest, highest;    // of the values given
  std::uint32_t unusable;   // how many are NaN or infinite (padding lanes may count twice)
};

// Reads value(label l, source point i) = data[l * label_stride + (i - first_source) * point_stride] into rows of
// storage order.
struct UnaryJob {
  const PixelOrder* order;
  const float* data;
  std::ptrdiff_t label_stride;
  std::ptrdiff_t point_stride;
  std::size_t first_source;
  UnaryKind kind;
  float cap;
  int labels;
  int lanes;
  float* rows;          // points x labels
  UnaryRange* ranges;   // per run
  // Scores on a coarser grid instead of `data`: coarse_height x coarse_width x lanes, upsampled with aligned corners.
  const float* coarse;
  std::size_t coarse_height, coarse_width, height, width;
};

// Per run: the terms of the variational energy, or of the label count.
struct SliceJob {
  const PixelOrder* order;
  const float* unary;     // energies, points x labels, in storage order; a whole row may be read at the last one
  const std::int32_t* padding;  // per lane: 0 for a label, -1 for padding
  const SliceTerm* terms;
  int term_count;
  int labels;
  int lanes;
  void* q;                // next Q, points x lanes; null when only `output` is wanted
  float* output;          // label-major in the caller's order, or null
  std::size_t points;     // label stride of output
  std::uint16_t* best;    // per pixel in storage order: label of the maximum, or null
  std::uint32_t* changed; // per run: how many labels differ from `best` before, or null
  std::uint8_t* settled;  // per pixel in storage order: set where the largest q exceeds `settle`, or null
  float settle;
  double* energy;         // per run: sum q log q + U q - q m at the *current* q, which then stays; or null
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
  void (*store_row)(const float* row, void* rows, std::size_t index, int lanes, Storage);
  // Embeds kRun pixels: weights[corner][pixel] and packed keys[corner * words + word][pixel] of the corners. Returns
  // false when a pixel falls outside the layout (impossible for finite features within bounds).
  bool (*embed)(const KeyLayout&, const float* scale, const float (*features)[kRun], float (*weights)[kRun],
                std::uint64_t (*keys)[kRun]);
};

// The best set this processor runs; `name` forces one ("portable", "avx2", "avx512", "neon"), null when absent.
const Kernels& best_kernels();
const Kernels* find_kernels(const char* name);

}  // namespace atrous
