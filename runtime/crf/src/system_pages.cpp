// See system_pages.h. Linux, macOS and the BSDs have mmap; Windows has VirtualAlloc, without huge pages: those need a
// privilege there.
#include "system_pages.h"

#include <new>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace atrous {

#ifdef _WIN32

void* map_pages(std::size_t length, std::size_t /*used*/) {
  void* const pages = VirtualAlloc(nullptr, length, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  if (pages == nullptr) throw std::bad_alloc();
  return pages;
}

void unmap_pages(void* address, std::size_t /*length*/) noexcept { VirtualFree(address, 0, MEM_RELEASE); }

#else

void* map_pages(std::size_t length, [[maybe_unused]] std::size_t used) {
  // Maps one huge page more and trims, so that the array starts on a huge-page boundary.
  const std::size_t span = length + kHugePage;
  if (span < length) throw std::bad_alloc();
  void* raw = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  char* const begin = static_cast<char*>(raw);
  const std::size_t skipped = (kHugePage - reinterpret_cast<std::size_t>(begin) % kHugePage) % kHugePage;
  char* const aligned = begin + skipped;
  if (skipped > 0) munmap(begin, skipped);
  if (skipped < kHugePage) munmap(aligned + length, kHugePage - skipped);
#ifdef MADV_HUGEPAGE
  // Without the last, partly used page: it would be filled, and a block of 25 MB would take 27.
  madvise(aligned, used / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return aligned;
}

void unmap_pages(void* address, std::size_t length) noexcept { munmap(address, length); }

#endif

}  // namespace atrous
