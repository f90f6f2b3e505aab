// Memory for the large arrays: uninitialised, cache-line aligned, on huge pages when big, given back at once.
//
// A lattice row is read at random, so address translation costs as much as the row itself on 4 KiB pages.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace atrous {

// Raises std::bad_alloc. `bytes` may be 0.
void* allocate_pages(std::size_t bytes);
void* allocate_zeroed_pages(std::size_t bytes);
// Keeps large blocks for the next allocation (the system would zero them again: a sixth of an inference), unless
// `at_once`.
void release_pages(void* address, std::size_t bytes, bool at_once = false) noexcept;
// Gives all kept blocks back to the system.
void release_kept_pages() noexcept;

// A fixed-size array of trivial T whose contents start undefined.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "Buffer holds plain values");

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : data_(static_cast<T*>(allocate_pages(size * sizeof(T)))), size_(size) {}
  static Buffer zeroed(std::size_t size) {
    Buffer buffer;
    buffer.data_ = static_cast<T*>(allocate_zeroed_pages(size * sizeof(T)));
    buffer.size_ = size;
    return buffer;
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      clear();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { clear(); }

  void clear(bool at_once = false) noexcept {
    if (data_ != nullptr) release_pages(data_, size_ * sizeof(T), at_once);
    data_ = nullptr;
    size_ = 0;
  }
  // The contents are lost unless the size is already right.
  void resize(std::size_t size) {
    if (size != size_) *this = Buffer(size);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace atrous
