// Maps vertex keys to dense ids in order of first touch: open addressing, grown by doubling, slots prefetched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "memory.h"

namespace atrous {

constexpr std::uint32_t kAbsent = 0xffffffffU;

// Equal for equal keys; for one word, only for those.
inline std::uint64_t hash_key(const std::uint64_t* key, std::size_t words) {
  std::uint64_t mixed = key[0] * 0x9e3779b97f4a7c15ULL;
  for (std::size_t w = 1; w < words; ++w) mixed = ((mixed >> 29) ^ mixed ^ key[w]) * 0xbf58476d1ce4e5b9ULL;
  return mixed;
}

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
  // Whether `more` vertices need a reserve() before. Where the final size can be estimated, it grows once instead of
  // three times.
  bool is_full(std::size_t more) const { return (size_ + more) * 2 > mask_; }
  void reserve(std::size_t expected) {
    std::size_t capacity = mask_ + 1;
    while (capacity < expected * 2) capacity *= 2;
    if (capacity > mask_ + 1) grow(capacity);
  }
  const std::uint64_t* key(std::size_t id) const { return keys_.data() + id * words_; }

  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash >> shift_], 0, 3); }

  // Access by one thread while nothing grows: its values stay in registers.
  template <bool OneWord>
  class View;

  std::uint32_t find_or_insert(const std::uint64_t* key, std::uint64_t hash);

 private:
  // Small, so that the slots of a usual lattice stay in the second-level cache. The key that a tag announces was
  // inserted recently, as were those of its neighbors.
  struct Slot {
    std::uint32_t tag;      // low bits of the hash, whose high bits choose the slot
    std::uint32_t next_id;  // id + 1; 0 is an empty slot
  };

  std::uint32_t insert(const std::uint64_t* key, std::uint64_t hash, std::size_t at) {
    std::copy_n(key, words_, keys_.data() + size_ * words_);
    ++size_;
    slots_[at] = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(size_)};
    return static_cast<std::uint32_t>(size_ - 1);
  }
  void make_slots(std::size_t capacity) {
    slots_ = scratch_.array<Slot>(capacity);
    std::memset(static_cast<void*>(slots_.data()), 0, slots_.bytes());
    mask_ = capacity - 1;
    shift_ = 64;
    for (std::size_t c = capacity; c > 1; c /= 2) --shift_;
  }
  void grow(std::size_t capacity) {
    slots_.clear(true);
    make_slots(capacity);
    Buffer<std::uint64_t> more = scratch_.array<std::uint64_t>(capacity / 2 * words_);
    std::copy_n(keys_.data(), size_ * words_, more.data());
    keys_.clear(true);
    keys_ = std::move(more);
    for (std::uint32_t id = 0; id < size_; ++id) {
      const std::uint64_t hashed = hash_key(key(id), words_);
      std::size_t at = hashed >> shift_;
      while (slots_[at].next_id != 0) at = (at + 1) & mask_;
      slots_[at] = {static_cast<std::uint32_t>(hashed), id + 1};
    }
  }

  Scratch& scratch_;
  Buffer<Slot> slots_;
  Buffer<std::uint64_t> keys_;  // by id, with room for all until the next growth
  std::size_t size_ = 0;
  std::size_t mask_ = 0;
  int shift_ = 64;
  std::size_t words_;
};

template <bool OneWord>
class VertexTable::View {
 public:
  explicit View(VertexTable& table)
      : table_(table),
        slots_(table.slots_.data()),
        keys_(table.keys_.data()),
        mask_(table.mask_),
        shift_(table.shift_),
        words_(OneWord ? 1 : table.words_) {}

  std::uint64_t hash(const std::uint64_t* key) const { return hash_key(key, words_); }
  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash >> shift_], 0, 3); }

  // Half of all lookups of neighbors fail, at random: the first probe gives either answer without a branch.
  std::uint32_t find(const std::uint64_t* key, std::uint64_t hash) const {
    const auto tag = static_cast<std::uint32_t>(hash);
    for (std::size_t at = hash >> shift_;; at = (at + 1) & mask_) {
      const Slot slot = slots_[at];
      const bool empty = slot.next_id == 0;
      const bool hit = (slot.tag == tag) & !empty;
      const std::uint32_t id = hit ? slot.next_id - 1 : 0;
      const bool equal = (keys_[id * words_] == key[0]) & hit;
      if (__builtin_expect(empty | equal, 1)) {
        if (OneWord || empty || same(id, key)) return equal ? id : kAbsent;
      }
    }
  }

  // The table must have room for it.
  std::uint32_t find_or_insert(const std::uint64_t* key, std::uint64_t hash) const {
    const auto tag = static_cast<std::uint32_t>(hash);
    std::size_t at = hash >> shift_;
    for (;; at = (at + 1) & mask_) {
      const Slot slot = slots_[at];
      if (slot.next_id == 0) return table_.insert(key, hash, at);
      if (slot.tag == tag && same(slot.next_id - 1, key)) return slot.next_id - 1;
    }
  }

 private:
  bool same(std::size_t id, const std::uint64_t* key) const {
    const std::uint64_t* const own = keys_ + id * words_;
    return own[0] == key[0] && (OneWord || std::memcmp(own, key, words_ * 8) == 0);
  }

  VertexTable& table_;
  const Slot* const slots_;
  const std::uint64_t* const keys_;
  const std::size_t mask_;
  const int shift_;
  const std::size_t words_;
};

inline std::uint32_t VertexTable::find_or_insert(const std::uint64_t* key, std::uint64_t hash) {
  if (is_full(1)) reserve(mask_ + 1);
  return View<false>(*this).find_or_insert(key, hash);
}

}  // namespace atrous
