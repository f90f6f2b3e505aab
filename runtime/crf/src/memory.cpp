// Page allocation: see memory.h. Below kMapThreshold the C++ heap serves; above it, fresh zeroed pages of the system.
#include "memory.h"

#include <new>

#include <sys/mman.h>

namespace atrous {
namespace {

constexpr std::size_t kMapThreshold = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::align_val_t kLine{64};

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

void* allocate_pages(std::size_t bytes) {
  if (bytes < kMapThreshold) return ::operator new(bytes == 0 ? 1 : bytes, kLine);
  // A little more is mapped than asked, then trimmed, so that the array starts on a huge-page boundary.
  const std::size_t length = round_up(bytes, 4096);
  const std::size_t span = length + kHugePage;
  if (span < bytes) throw std::bad_alloc();
  void* raw = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  char* begin = static_cast<char*>(raw);
  char* aligned = begin + (round_up(reinterpret_cast<std::size_t>(begin), kHugePage) - reinterpret_cast<std::size_t>(begin));
  if (aligned > begin) munmap(begin, static_cast<std::size_t>(aligned - begin));
  char* const end = begin + span;
  if (end > aligned + length) munmap(aligned + length, static_cast<std::size_t>(end - (aligned + length)));
#ifdef MADV_HUGEPAGE
  madvise(aligned, length, MADV_HUGEPAGE);
#endif
  return aligned;
}

void release_pages(void* address, std::size_t bytes) noexcept {
  if (bytes < kMapThreshold) {
    ::operator delete(address, kLine);
  } else {
    munmap(address, round_up(bytes, 4096));
  }
}

}  // namespace atrous
