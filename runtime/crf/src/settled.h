// The pixels still undecided after some updates; later updates visit only these.
//
// A pixel whose largest marginal is near 1 hardly changes any more: its share of every vertex is summed once, and from
// then on splat adds only the active pixels and slice visits only those. An approximation, off by default.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "lattice.h"
#include "memory.h"
#include "order.h"
#include "threads.h"

namespace atrous {

class ActivePixels {
 public:
  // `settled` has one byte per pixel in storage order; it and the lattices must outlive this object.
  ActivePixels(const PixelOrder& order, const std::vector<const Lattice*>& lattices,
               const std::vector<std::uint8_t>& settled, std::size_t lanes, Storage storage);

  // Called by all ranks while the marginals do not change: sums the settled pixels' shares, lists the other pixels.
  void gather(Team& team, int rank, const Kernels& kernels, const void* q);

  // Runs of active pixels only.
  const PixelOrder& order() const { return order_; }
  const std::uint32_t* offsets(std::size_t term) const { return terms_[term].offsets.data(); }
  const Entry* splats(std::size_t term) const { return terms_[term].splats.data(); }
  const void* base(std::size_t term) const { return terms_[term].base.data(); }

 private:
  struct Part {
    const Lattice* lattice;
    Buffer<std::uint32_t> offsets;
    Buffer<Entry> splats;
    Buffer<unsigned char> base;  // rows of the settled pixels' sums
  };

  void count(Part& part, std::size_t begin, std::size_t end);
  static void place(Part& part);
  void split(Part& part, const Kernels& kernels, const void* q, std::size_t begin, std::size_t end);

  const std::vector<std::uint8_t>& settled_;
  std::size_t lanes_;
  Storage storage_;
  PixelOrder order_;
  std::vector<Part> terms_;
};

}  // namespace atrous
