// Memory pages from the operating system: the one place with mmap and VirtualAlloc.
#pragma once

#include <cstddef>

namespace atrous {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Zeroed pages, on huge pages up to the last whole one of `used` bytes where the system has them. Throws
// std::bad_alloc. `length` is a multiple of the page size, at least `used`.
void* map_pages(std::size_t length, std::size_t used);
void unmap_pages(void* address, std::size_t length) noexcept;

}  // namespace atrous
