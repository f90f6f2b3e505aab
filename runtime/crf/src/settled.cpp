// See settled.h: two passes over the lattices' splat entries, in chunks of vertices.
#include "settled.h"

#include <algorithm>

namespace atrous {
namespace {

constexpr std::size_t kVertexChunk = 512;

}  // namespace

ActivePixels::ActivePixels(const PixelOrder& order, const std::vector<const Lattice*>& lattices,
                           const std::vector<std::uint8_t>& settled, std::size_t lanes, Storage storage)
    : settled_(settled), lanes_(lanes), storage_(storage), order_(order.without(settled)) {
  for (const Lattice* const lattice : lattices) {
    terms_.push_back({lattice, Buffer<std::uint32_t>(lattice->vertices() + 1), Buffer<Entry>(),
                      Buffer<unsigned char>(lattice->vertices() * row_bytes(lanes, storage))});
  }
}

void ActivePixels::gather(Team& team, int rank, const Kernels& kernels, const void* q) {
  for (Part& part : terms_) {
    const std::size_t vertices = part.lattice->vertices();
    team.share(rank, vertices, kVertexChunk, [&](std::size_t begin, std::size_t end) { count(part, begin, end); });
    team.alone(rank, [&] { place(part); });
    team.share(rank, vertices, kVertexChunk,
               [&](std::size_t begin, std::size_t end) { split(part, kernels, q, begin, end); });
  }
}

// offsets[v + 1] = number of active pixels that touch vertex v
void ActivePixels::count(Part& part, std::size_t begin, std::size_t end) {
  const std::uint32_t* const offsets = part.lattice->offsets();
  const Entry* const splats = part.lattice->splats();
  for (std::size_t v = begin; v < end; ++v) {
    std::uint32_t active = 0;
    for (std::size_t e = offsets[v]; e < offsets[v + 1]; ++e) active += settled_[splats[e].index] == 0 ? 1 : 0;
    part.offsets[v + 1] = active;
  }
}

void ActivePixels::place(Part& part) {
  part.offsets[0] = 0;
  for (std::size_t v = 0; v < part.lattice->vertices(); ++v) part.offsets[v + 1] += part.offsets[v];
  part.splats = Buffer<Entry>(part.offsets[part.lattice->vertices()]);
}

void ActivePixels::split(Part& part, const Kernels& kernels, const void* q, std::size_t begin, std::size_t end) {
  const std::uint32_t* const offsets = part.lattice->offsets();
  const Entry* const splats = part.lattice->splats();
  std::vector<std::uint32_t> settled_offsets{0};
  std::vector<Entry> settled_splats;
  settled_splats.reserve(offsets[end] - offsets[begin]);
  for (std::size_t v = begin; v < end; ++v) {
    std::size_t at = part.offsets[v];
    for (std::size_t e = offsets[v]; e < offsets[v + 1]; ++e) {
      if (settled_[splats[e].index] != 0) {
        settled_splats.push_back(splats[e]);
      } else {
        part.splats[at++] = splats[e];
      }
    }
    settled_offsets.push_back(static_cast<std::uint32_t>(settled_splats.size()));
  }
  SplatJob job{};
  job.offsets = settled_offsets.data();
  job.entries = settled_splats.data();
  job.gains = part.lattice->gains();
  job.q = q;
  job.rows = part.base.data() + begin * row_bytes(lanes_, storage_);
  job.lanes = lanes_;
  kernels.splat(job, storage_, 0, end - begin);
}

}  // namespace atrous
