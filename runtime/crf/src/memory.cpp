// Page allocation (see memory.h). Blocks below kMapThreshold come from the C++ heap, larger ones from the system. A
// bounded amount is kept for reuse: images of one size allocate the same blocks again and again.
#include "memory.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "fork.h"
#include "system_pages.h"

namespace atrous {
namespace {

constexpr std::size_t kMapThreshold = std::size_t{1} << 20;
constexpr std::size_t kMostKept = std::size_t{256} << 20;
constexpr std::align_val_t kLine{64};

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Rounds up to an eighth of a power of two, so that images of similar size share blocks.
std::size_t block_length(std::size_t bytes) {
  std::size_t unit = kMapThreshold;
  while (unit * 2 <= bytes) unit *= 2;
  return round_up(bytes, unit / 8);
}

struct Block {
  void* address;
  std::size_t length;
};

std::mutex mutex;
// The forking thread takes the mutex: a child must not inherit it locked by a thread that the child does not have.
[[maybe_unused]] const bool fork_handled =
    (at_fork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); }), true);
std::vector<Block>& kept() {
  static auto* const blocks = new std::vector<Block>;  // never destroyed: outlives every buffer
  return *blocks;
}
std::size_t kept_bytes = 0;

// Removes a kept block; the caller holds the mutex.
Block take_block(Block& block) noexcept {
  const Block taken = std::exchange(block, kept().back());
  kept().pop_back();
  kept_bytes -= taken.length;
  return taken;
}

// Keeps the block for later, unless there is no room.
bool keep(Block block) noexcept {
  std::lock_guard<std::mutex> lock(mutex);
  if (kept_bytes + block.length > kMostKept) return false;
  try {
    kept().push_back(block);
  } catch (const std::bad_alloc&) {
    return false;
  }
  kept_bytes += block.length;
  return true;
}

}  // namespace

void* allocate_pages(std::size_t bytes) {
  if (bytes < kMapThreshold) return ::operator new(bytes == 0 ? 1 : bytes, kLine);
  const std::size_t length = block_length(bytes);
  {
    std::lock_guard<std::mutex> lock(mutex);
    for (Block& block : kept()) {
      if (block.length == length) return take_block(block).address;
    }
  }
  return map_pages(length, bytes);
}

void release_pages(void* address, std::size_t bytes, bool at_once) noexcept {
  if (bytes < kMapThreshold) {
    ::operator delete(address, kLine);
    return;
  }
  const std::size_t length = block_length(bytes);
  if (at_once || !keep({address, length})) unmap_pages(address, length);
}

Scratch::Scratch() noexcept {
  std::lock_guard<std::mutex> lock(mutex);
  std::vector<Block>& blocks = kept();
  const auto largest = std::max_element(blocks.begin(), blocks.end(),
                                        [](const Block& a, const Block& b) { return a.length < b.length; });
  if (largest == blocks.end()) return;
  const Block block = take_block(*largest);
  block_ = block.address;
  length_ = block.length;
}

Scratch::~Scratch() {
  if (block_ != nullptr && !keep({block_, length_})) unmap_pages(block_, length_);
}

void* Scratch::take(std::size_t bytes) noexcept {
  constexpr std::size_t kPage = 4096;
  const std::size_t rounded = round_up(bytes, bytes < kMapThreshold ? static_cast<std::size_t>(kLine) : kPage);
  if (rounded < bytes || used_.load(std::memory_order_relaxed) + rounded > length_) return nullptr;
  const std::size_t begin = used_.fetch_add(rounded, std::memory_order_relaxed);
  return begin + rounded <= length_ ? static_cast<char*>(block_) + begin : nullptr;
}

void release_kept_pages() noexcept {
  std::lock_guard<std::mutex> lock(mutex);
  for (const Block& block : kept()) unmap_pages(block.address, block.length);
  kept().clear();
  kept_bytes = 0;
}

}  // namespace atrous
