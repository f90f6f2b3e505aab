// Memory for the large arrays: uninitialized, cache-line aligned, on huge pages when big.
//
// Lattice rows are read at random: on 4 KiB pages, address translation costs as much as the row itself.
#pragma once

#include <atomic>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace atrous {

// Throws std::bad_alloc. `bytes` may be 0.
void* allocate_pages(std::size_t bytes);
// Keeps large blocks for the next allocation, unless `at_once`: fresh pages must be zeroed, a sixth of an inference.
void release_pages(void* address, std::size_t bytes, bool at_once = false) noexcept;
// Returns all kept blocks to the system.
void release_kept_pages() noexcept;

template <class T>
class Buffer;

// Space for arrays that live no longer than itself, taken from the largest kept block, if there is one. Each fresh page
// costs a fault, and returning pages interrupts every other thread; a kept block costs neither.
class Scratch {
 public:
  Scratch() noexcept;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // From the block while it lasts, then from the system. Several threads may call it at once.
  template <class T>
  Buffer<T> array(std::size_t size);

 private:
  void* take(std::size_t bytes) noexcept;  // null when it does not fit

  void* block_ = nullptr;
  std::size_t length_ = 0;
  std::atomic<std::size_t> used_{0};
};

// A fixed-size array of trivial T with undefined initial contents.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "Buffer holds plain values");

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : data_(static_cast<T*>(allocate_pages(size * sizeof(T)))), size_(size) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), lent_(other.lent_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      clear();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      lent_ = other.lent_;
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { clear(); }

  void clear(bool at_once = false) noexcept {
    if (data_ != nullptr && !lent_) release_pages(data_, size_ * sizeof(T), at_once);
    data_ = nullptr;
    size_ = 0;
  }
  // Discards the contents, unless the size stays.
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
  friend class Scratch;

  T* data_ = nullptr;
  std::size_t size_ = 0;
  bool lent_ = false;  // from a Scratch
};

template <class T>
Buffer<T> Scratch::array(std::size_t size) {
  Buffer<T> result;
  result.data_ = static_cast<T*>(take(size * sizeof(T)));
  if (result.data_ == nullptr) return Buffer<T>(size);
  result.size_ = size;
  result.lent_ = true;
  return result;
}

}  // namespace atrous
