// Maps vertex keys to dense ids in order of first touch: open addressing, grown by doubling, slots prefetched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "memory.h"

namespace atrous {

constexpr std::uint32_t kAbsent = 0xffffffffU;

class VertexTable {
 public:
  VertexTable(Scratch& scratch, std::size_t words, std::size_t expected) : scratch_(scratch), words_(words) {
    std::size_t capacity = 1024;
    while (capacity < expected * 2) capacity *= 2;
    make_slots(capacity);
    keys_ = scratch.array<std::uint64_t>(capacity / 2 * words);
  }

  VertexTable(const VertexTable&) = delete;
  // The table is as large as a lattice and no longer needed: keeping its pages would only raise the peak.
  ~VertexTable() {
    slots_.clear(true);
    keys_.clear(true);
  }

  std::size_t size() const { return size_; }
  // Whether `more` vertices might make it grow by doubling. Where the final size can be estimated, reserve() grows it
  // once instead of three times.
  bool may_grow(std::size_t more) const { return (size_ + more) * 2 > mask_; }
  void reserve(std::size_t expected) {
    std::size_t capacity = mask_ + 1;
    while (capacity < expected * 2) capacity *= 2;
    if (capacity > mask_ + 1) grow(capacity);
  }
  const std::uint64_t* key(std::size_t id) const { return keys_.data() + id * words_; }

  std::uint64_t hash(const std::uint64_t* key) const {
    std::uint64_t mixed = key[0] * 0x9e3779b97f4a7c15ULL;
    for (std::size_t w = 1; w < words_; ++w) mixed = ((mixed >> 29) ^ mixed ^ key[w]) * 0xbf58476d1ce4e5b9ULL;
    return mixed;
  }
  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash >> shift_], 0, 3); }

  // Half of all lookups of neighbors fail, at random: the first probe gives either answer without a branch.
  std::uint32_t find(const std::uint64_t* key, std::uint64_t hash) const {
    const std::uint64_t tag = words_ == 1 ? key[0] : hash;
    for (std::size_t at = hash >> shift_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      const bool empty = slot.next_id == 0;
      const bool hit = (slot.tag == tag) & !empty;
      if (__builtin_expect(empty | hit, 1)) {
        const std::uint32_t answer = hit ? slot.next_id - 1 : kAbsent;
        if (words_ == 1 || !hit || same(answer, key)) return answer;
      }
    }
  }

  std::uint32_t find_or_insert(const std::uint64_t* key, std::uint64_t hash) {
    const std::uint64_t tag = words_ == 1 ? key[0] : hash;
    std::size_t at = hash >> shift_;
    for (;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.next_id == 0) break;
      if (slot.tag == tag && same(slot.next_id - 1, key)) return slot.next_id - 1;
    }
    std::copy_n(key, words_, keys_.data() + size_ * words_);
    ++size_;
    slots_[at].tag = tag;
    slots_[at].next_id = static_cast<std::uint32_t>(size_);
    if (size_ * 2 > mask_) grow((mask_ + 1) * 2);
    return static_cast<std::uint32_t>(size_ - 1);
  }

 private:
  struct Slot {
    std::uint64_t tag;      // the key itself when it is one word, else its hash
    std::uint32_t next_id;  // id + 1; 0 is an empty slot
  };

  bool same(std::size_t id, const std::uint64_t* key) const {
    return words_ == 1 || std::memcmp(this->key(id), key, words_ * 8) == 0;
  }
  void make_slots(std::size_t capacity) {
    slots_ = scratch_.array<Slot>(capacity);
    std::memset(static_cast<void*>(slots_.data()), 0, slots_.bytes());
    mask_ = capacity - 1;
    shift_ = 64;
    for (std::size_t c = capacity; c > 1; c /= 2) --shift_;
  }
  void grow(std::size_t capacity) {
    Buffer<Slot> old = std::move(slots_);
    make_slots(capacity);
    Buffer<std::uint64_t> more = scratch_.array<std::uint64_t>(capacity / 2 * words_);
    std::copy_n(keys_.data(), size_ * words_, more.data());
    keys_.clear(true);
    keys_ = std::move(more);
    for (const Slot* slot = old.data(); slot != old.data() + old.size(); ++slot) {
      if (slot->next_id == 0) continue;
      std::size_t at = (words_ == 1 ? hash(&slot->tag) : slot->tag) >> shift_;
      while (slots_[at].next_id != 0) at = (at + 1) & mask_;
      slots_[at] = *slot;
    }
    old.clear(true);
  }

  Scratch& scratch_;
  Buffer<Slot> slots_;
  Buffer<std::uint64_t> keys_;  // by id, with room for all until the next growth
  std::size_t size_ = 0;
  std::size_t mask_ = 0;
  int shift_ = 64;
  std::size_t words_;
};

}  // namespace atrous
