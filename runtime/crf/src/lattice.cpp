// A lattice in use: its filter of ones, its peak, and copies of its arrays. builder.cpp builds it.
#include "lattice.h"

#include <algorithm>

namespace atrous {
namespace {

constexpr std::size_t kVertexChunk = 1024;
constexpr std::size_t kEntryChunk = 8192;

}  // namespace

void Lattice::filter_ones(Team& team, int rank, const float* gains, float* mass) const {
  team.share(rank, vertices_, kVertexChunk, [&](std::size_t begin, std::size_t end) {
    for (std::size_t v = begin; v < end; ++v) {
      float sum = 0.0F;
      for (std::size_t e = offsets_[v]; e < offsets_[v + 1]; ++e) {
        sum += gains != nullptr ? splats_[e].weight * gains[splats_[e].index] : splats_[e].weight;
      }
      mass[v] = sum;
    }
  });
  for (const BlurAxis& axis : axes_) {
    team.share(rank, axis.pieces.size() - 1, 1, [&](std::size_t piece, std::size_t) {
      float previous = 0.0F;
      for (std::size_t i = axis.pieces[piece]; i < axis.pieces[piece + 1]; ++i) {
        const bool ends = (axis.chain[i] & 1U) != 0;
        float& here = mass[axis.chain[i] >> 1];
        const float before = here;
        here = before + 0.5F * (previous + (ends ? 0.0F : mass[axis.chain[i + 1] >> 1]));
        previous = ends ? 0.0F : before;
      }
    });
  }
}

float Lattice::peak(int threads) const {
  if (normalization_ == Normalization::kAfter) return 1.0F;
  Buffer<float> mass(vertices_);
  std::vector<float> peaks(threads);
  run_team(threads, [&](Team& team, int rank) {
    filter_ones(team, rank, gains(), mass.data());
    team.share(rank, order_->points(), kEntryChunk, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        float sum = 0.0F;
        for (std::size_t e = i * corners_; e < (i + 1) * corners_; ++e) {
          sum += slices_[e].weight * mass[slices_[e].index];
        }
        peaks[rank] = std::max(peaks[rank], factors() != nullptr ? sum * norms_[i] : sum);
      }
    });
  });
  return *std::max_element(peaks.begin(), peaks.end());
}

void Lattice::write_simplices(std::int32_t* vertices, float* weights) const {
  std::vector<std::size_t> sources(order_->points());
  for (std::size_t r = 0; r < order_->runs(); ++r) {
    const Run run = order_->run(r);
    for (std::size_t i = 0; i < run.length; ++i) sources[run.first + i] = run.source + i;
  }
  for (std::size_t e = 0; e < slices_.size(); ++e) {
    const std::size_t to = sources[e / corners_] * corners_ + e % corners_;
    vertices[to] = static_cast<std::int32_t>(slices_[e].index);
    weights[to] = 0.0F;  // of masked pixels
  }
  for (std::size_t v = 0; v < vertices_; ++v) {
    for (std::size_t e = offsets_[v]; e < offsets_[v + 1]; ++e) {
      const std::size_t first = sources[splats_[e].index] * corners_;
      const auto* const corner = std::find(vertices + first, vertices + first + corners_, static_cast<std::int32_t>(v));
      weights[corner - vertices] = splats_[e].weight;
    }
  }
}

void Lattice::write_neighbors(std::int32_t* neighbors) const {
  std::fill_n(neighbors, corners_ * vertices_ * 2, static_cast<std::int32_t>(vertices_));
  for (const BlurAxis& axis : axes_) {
    for (std::size_t i = 0; i < axis.chain.size(); ++i) {
      if ((axis.chain[i] & 1U) != 0) continue;
      const std::uint32_t here = axis.chain[i] >> 1, next = axis.chain[i + 1] >> 1;
      neighbors[std::size_t{here} * 2 + 1] = static_cast<std::int32_t>(next);
      neighbors[std::size_t{next} * 2] = static_cast<std::int32_t>(here);
    }
    neighbors += vertices_ * 2;
  }
}

std::size_t Lattice::bytes() const {
  std::size_t total = slices_.bytes() + splats_.bytes() + offsets_.bytes() + norms_.bytes();
  for (const BlurAxis& axis : axes_) total += axis.chain.bytes();
  return total;
}

}  // namespace atrous
