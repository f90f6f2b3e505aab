// The Python bindings of the core: arrays (numpy, torch, any DLPack) are used in place and never copied; the GIL is
// released while lattices are built and iterations run. These checks keep memory safe; the Python side explains more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <thread>

#include "fork.h"
#include "mean_field.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace atrous {
namespace {

using FloatArray = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using ByteArray = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using ImageArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using StridedRows = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using OutputRows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Threads that have finished their work and wait for the GIL.
std::atomic<int> returning{0};
std::atomic<bool> interpreter_ends{false};
std::thread::id ending_thread;

// Releases the GIL while it lives. Once the interpreter ends, other threads sleep for good instead of taking it back,
// as in Python 3.14: earlier versions unwind them through destructors that must not throw, which aborts the process.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ReleasedGil(const ReleasedGil&) = delete;
  ~ReleasedGil() {
    ++returning;
    if (interpreter_ends && std::this_thread::get_id() != ending_thread) {
      --returning;
      for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
    }
    PyEval_RestoreThread(state_);
    --returning;
  }

 private:
  PyThreadState* state_;
};

// Runs at exit, while threads may still take the GIL.
void end_threads() {
  ending_thread = std::this_thread::get_id();
  interpreter_ends = true;
  const ReleasedGil release;
  while (returning > 0) std::this_thread::yield();
}

struct InUse : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct CancelToken {
  std::atomic<bool> cancelled{false};
};

void require(bool held, const char* message) {
  if (!held) throw std::invalid_argument(message);
}

int checked_threads(int threads) {
  require(threads >= 1 && threads <= 256, "threads must be 1 to 256");
  return threads;
}

// The best kernels if `name` is empty.
const Kernels& find_kernels(const std::string& name) {
  const Kernels* found = nullptr;
  for (const Kernels* const kernels : runnable_kernels()) {
    if (name.empty() || name == kernels->name) found = kernels;
  }
  require(found != nullptr, "this processor has no kernels of that name");
  return *found;
}

std::shared_ptr<Lattice> build_lattice(std::shared_ptr<PixelOrder> order, const Features& features, int normalization,
                                       const std::optional<ByteArray>& mask, int threads, const std::string& kernels) {
  require(!mask || mask->size() == order->points(), "the mask must have one byte for each pixel");
  require(normalization >= 0 && normalization <= 3, "normalization must be 0 to 3");
  checked_threads(threads);
  const Kernels& chosen = find_kernels(kernels);
  const ReleasedGil release;
  return std::make_shared<Lattice>(order, features, static_cast<Normalization>(normalization),
                                   mask ? mask->data() : nullptr, chosen, threads);
}

// An image of bytes may be elsewhere and absent here, where only its features' bounds are needed.
Features grid_features(std::size_t points, std::vector<std::uint32_t> grid, std::vector<float> position_sigmas,
                       const std::optional<ImageArray>& image, std::vector<float> channel_sigmas,
                       bool absent_bytes = false) {
  static const std::uint8_t kElsewhere = 0;
  std::size_t cells = 1;
  for (const std::uint32_t extent : grid) {
    require(extent > 0 && cells <= points / extent, "the grid has more cells than the image has pixels");
    cells *= extent;
  }
  require(cells == points && position_sigmas.size() == grid.size(), "grid, sigmas and image do not fit");
  require(grid.size() <= kMostDimensions && channel_sigmas.size() <= kMostDimensions - grid.size(),
          "a kernel has at most 64 dimensions");
  const std::size_t values = cells * channel_sigmas.size();
  require(image ? image->size() == values : values == 0 || absent_bytes,
          "the image must have one value for each pixel and channel sigma");
  const bool is_bytes = image && image->dtype() == nb::dtype<std::uint8_t>();
  require(!image || is_bytes || image->dtype() == nb::dtype<float>(), "the image must be uint8 or float32");
  Features features;
  features.points = points;
  features.dimensions = static_cast<int>(grid.size() + channel_sigmas.size());
  features.grid = std::move(grid);
  features.position_sigmas = std::move(position_sigmas);
  features.channel_sigmas = std::move(channel_sigmas);
  if (is_bytes) features.bytes = static_cast<const std::uint8_t*>(image->data());
  if (image && !is_bytes) features.floats = static_cast<const float*>(image->data());
  if (!image && absent_bytes) features.bytes = &kElsewhere;
  return features;
}

Features free_features(std::size_t points, const FloatArray& values) {
  require(values.ndim() == 2 && values.shape(1) == points && values.shape(0) >= 1 && values.shape(0) <= kMostDimensions,
          "features must be (dimensions, points), with 1 to 64 dimensions");
  Features features;
  features.points = points;
  features.dimensions = static_cast<int>(values.shape(0));
  features.free = values.data();
  return features;
}

std::shared_ptr<Lattice> build_grid_lattice(std::shared_ptr<PixelOrder> order, std::vector<std::uint32_t> grid,
                                            std::vector<float> position_sigmas, std::optional<ImageArray> image,
                                            std::vector<float> channel_sigmas, int normalization,
                                            std::optional<ByteArray> mask, int threads, const std::string& kernels) {
  const Features features =
      grid_features(order->points(), std::move(grid), std::move(position_sigmas), image, std::move(channel_sigmas));
  return build_lattice(std::move(order), features, normalization, mask, threads, kernels);
}

std::shared_ptr<Lattice> build_free_lattice(std::shared_ptr<PixelOrder> order, FloatArray values, int normalization,
                                            std::optional<ByteArray> mask, int threads, const std::string& kernels) {
  const Features features = free_features(order->points(), values);
  return build_lattice(std::move(order), features, normalization, mask, threads, kernels);
}

// (scale, lowest, word and shift of each coordinate; bits of each word): how a GPU packs the same keys.
nb::tuple describe_keys(const Features& features) {
  const std::vector<float> scale = elevation_scale(features.dimensions);
  const KeyLayout layout(features, scale);
  return nb::make_tuple(scale, layout.lowest, layout.word, layout.shift, layout.used);
}

nb::tuple describe_grid_keys(std::vector<std::uint32_t> grid, std::vector<float> position_sigmas,
                             std::optional<ImageArray> image, std::vector<float> channel_sigmas) {
  std::size_t points = 1;
  for (const std::uint32_t extent : grid) points *= extent;
  const bool absent_bytes = !image && !channel_sigmas.empty();
  return describe_keys(grid_features(points, std::move(grid), std::move(position_sigmas), image,
                                     std::move(channel_sigmas), absent_bytes));
}

nb::tuple describe_free_keys(FloatArray values) {
  require(values.ndim() == 2, "features must be (dimensions, points)");
  return describe_keys(free_features(values.shape(1), values));
}

// ---- arrays on a device, by DLPack ----------------------------------------------------------------------------------

using AnyArray = nb::ndarray<nb::ro>;

// (address, shape, strides, kind "f" or "u" or "", bits, DLPack's device type, device number, owner)
nb::tuple import_array(const AnyArray& array) {
  const nb::dlpack::dtype type = array.dtype();
  const auto code = static_cast<nb::dlpack::dtype_code>(type.code);
  const char* const kind = type.lanes != 1                         ? ""
                           : code == nb::dlpack::dtype_code::Float ? "f"
                           : code == nb::dlpack::dtype_code::UInt  ? "u"
                                                                   : "";
  nb::list shape, strides;
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    shape.append(array.shape(i));
    strides.append(array.stride(i));
  }
  nb::capsule owner(new AnyArray(array), [](void* p) noexcept { delete static_cast<AnyArray*>(p); });
  return nb::make_tuple(reinterpret_cast<std::uintptr_t>(array.data()), nb::tuple(shape), nb::tuple(strides), kind,
                        type.bits, array.device_type(), array.device_id(), owner);
}

// An object with __dlpack__; `owner` keeps the memory.
nb::object export_array(std::uintptr_t address, const std::vector<std::size_t>& shape, const std::string& kind,
                        int bits, int device_type, int device_id, nb::object owner) {
  const auto code = kind == "f" ? nb::dlpack::dtype_code::Float : nb::dlpack::dtype_code::UInt;
  const nb::dlpack::dtype type{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1};
  const nb::ndarray<nb::array_api> array(reinterpret_cast<void*>(address), shape.size(), shape.data(), owner, nullptr,
                                         type, device_type, device_id);
  return nb::cast(array, nb::rv_policy::reference);
}

std::shared_ptr<PixelOrder> make_linear_order(std::uint32_t points) {
  return std::make_shared<PixelOrder>(PixelOrder::linear(points));
}

std::shared_ptr<PixelOrder> make_tiled_order(std::uint32_t height, std::uint32_t width) {
  return std::make_shared<PixelOrder>(PixelOrder::tiled(height, width));
}

float find_peak(const Lattice& lattice, int threads) {
  checked_threads(threads);
  const ReleasedGil release;
  return lattice.peak(threads);
}

using Int32Array = nb::ndarray<nb::numpy, std::int32_t>;
using Float32Array = nb::ndarray<nb::numpy, float>;

template <class Array, class Value>
Array make_array(const std::vector<std::size_t>& shape, std::unique_ptr<Value[]> values) {
  Value* const data = values.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Value*>(p); });
  return Array(data, shape.size(), shape.data(), owner);
}

// In the caller's order of the points; null where the normalization has none.
nb::object copy_norms(const Lattice& lattice, const float* norms) {
  if (norms == nullptr) return nb::none();
  const PixelOrder& order = lattice.order();
  auto values = std::make_unique<float[]>(order.points());
  for (std::size_t r = 0; r < order.runs(); ++r) {
    const Run run = order.run(r);
    std::copy_n(norms + run.first, run.length, values.get() + run.source);
  }
  return nb::cast(make_array<Float32Array>({order.points()}, std::move(values)));
}

// (vertices, weights, neighbors, gains or None, factors or None): see Lattice::write_simplices.
nb::tuple copy_arrays(const Lattice& lattice) {
  const std::size_t points = lattice.order().points(), corners = lattice.corners(), count = lattice.vertices();
  auto vertices = std::make_unique<std::int32_t[]>(points * corners);
  auto weights = std::make_unique<float[]>(points * corners);
  auto neighbors = std::make_unique<std::int32_t[]>(corners * count * 2);
  lattice.write_simplices(vertices.get(), weights.get());
  lattice.write_neighbors(neighbors.get());
  return nb::make_tuple(make_array<Int32Array>({points, corners}, std::move(vertices)),
                        make_array<Float32Array>({points, corners}, std::move(weights)),
                        make_array<Int32Array>({corners, count, 2}, std::move(neighbors)),
                        copy_norms(lattice, lattice.gains()), copy_norms(lattice, lattice.factors()));
}

std::size_t count_chained(const Lattice& lattice) {
  std::size_t total = 0;
  for (const auto& axis : lattice.axes()) total += axis.chain.size();
  return total;
}

// A MeanField for one thread at a time: it works without the GIL, so a second thread could change data that the first
// one reads. Callers enter it (`with field:`) around all calls; threads that they start share the entry.
class BoundMeanField {
 public:
  BoundMeanField(std::shared_ptr<PixelOrder> order, std::size_t labels, bool half, const std::string& kernels,
                 int threads)
      : field_(std::move(order), checked_labels(labels), half ? Storage::kHalf : Storage::kFloat, find_kernels(kernels),
               checked_threads(threads)) {}

  void enter() {
    if (in_use_.exchange(true)) throw InUse("in use by another thread");
  }
  void exit() { in_use_.store(false); }

  void add_term(std::shared_ptr<Lattice> lattice, int kind, FloatArray values) {
    require(kind >= 0 && kind <= 2 && lattice->order().points() == field().points(),
            "the term does not fit the points");
    const std::size_t expected[] = {1, labels(), labels() * labels()};
    require(values.size() == expected[kind], "the compatibility does not fit the labels");
    field().add_term({std::move(lattice), static_cast<Compatibility>(kind),
                      std::vector<float>(values.data(), values.data() + values.size())});
  }
  void clear_terms() { field().clear_terms(); }
  void restart(std::size_t labels) { field().restart(checked_labels(labels)); }

  // Needed before bands are set by several threads.
  void allocate_unary() { field().allocate_unary(); }

  // Returns (number of NaN or infinite values, lowest, highest, per label the least distance above the best).
  nb::tuple set_unary(StridedRows values, std::size_t first, int kind, float cap) {
    require(values.shape(0) == labels() && values.shape(1) > 0 && first <= field().points() &&
                values.shape(1) <= field().points() - first && kind >= 0 && kind <= 2,
            "unary must be (labels, points of the band)");
    return read([&](std::vector<float>& gaps) {
      return field().set_unary(values.data(), values.stride(0), values.stride(1), first, values.shape(1),
                               static_cast<UnaryKind>(kind), cap, gaps);
    });
  }

  nb::tuple set_coarse_scores(FloatArray scores, std::size_t width, std::size_t padded_height, std::size_t padded_width,
                              float cap) {
    require(scores.ndim() == 3 && scores.shape(2) == labels() && scores.size() > 0,
            "scores must be (height, width, labels)");
    require(width > 0 && field().points() % width == 0 && padded_width >= width &&
                padded_height >= field().points() / width,
            "width and padded size do not fit the points");
    return read([&](std::vector<float>& gaps) {
      const CoarseGrid grid{scores.data(), scores.shape(0), scores.shape(1), padded_height, padded_width};
      return field().set_coarse_scores(grid, width, cap, gaps);
    });
  }

  void read_unary(OutputRows output) {
    require_unary();
    require_shape(output);
    const ReleasedGil release;
    field().read_unary(output.data());
  }
  std::size_t labels() { return field().labels(); }

  void keep_labels(const std::vector<std::size_t>& kept) {
    require_unary();
    require(!kept.empty() && kept.back() < labels(), "the labels to keep must exist");
    for (std::size_t i = 1; i < kept.size(); ++i) require(kept[i - 1] < kept[i], "the labels to keep must ascend");
    const ReleasedGil release;
    field().keep_labels(kept);
  }

  // Returns the marginals, in memory that the core reuses when the array is freed, and the values of the report.
  nb::tuple run(int iterations, bool keep, bool warm, double tolerance, double settle, const CancelToken* token) {
    require_unary();
    InferenceOptions options;
    options.iterations = iterations;
    options.tolerance = tolerance;
    options.settle = settle;
    options.warm = warm;
    options.keep = keep;
    options.cancelled = token != nullptr ? &token->cancelled : nullptr;
    InferenceReport done;
    auto memory = std::make_unique<Buffer<unsigned char>>();
    {
      const ReleasedGil release;
      *memory = field().run(options, done);
    }
    void* const data = memory->data();
    nb::capsule owner(memory.release(), [](void* p) noexcept { delete static_cast<Buffer<unsigned char>*>(p); });
    const nb::ndarray<nb::numpy, float> array(data, {labels(), field().points()}, owner);
    return nb::make_tuple(array, nb::make_tuple(done.iterations, done.cancelled, done.changed, done.settled,
                                                done.start_s, done.splat_s, done.blur_s, done.slice_s));
  }

  void load_marginals(StridedRows values) {
    require_shape(values);
    const ReleasedGil release;
    field().load_marginals(values.data(), values.stride(0), values.stride(1));
  }

  double kl_divergence() {
    require_unary();
    const ReleasedGil release;
    return field().kl_divergence();
  }

  std::size_t bytes() { return field().bytes(); }
  std::string kernels() const { return field_.kernels().name; }

 private:
  template <class Set>
  static nb::tuple read(const Set& set) {
    std::vector<float> gaps;
    UnaryRange range;
    {
      const ReleasedGil release;
      range = set(gaps);
    }
    return nb::make_tuple(range.unusable, range.lowest, range.highest, gaps);
  }
  static std::size_t checked_labels(std::size_t labels) {
    require(labels >= 1 && labels <= 65535, "labels must be 1 to 65535");
    return labels;
  }
  template <class Array>
  void require_shape(const Array& array) {
    require(array.shape(0) == labels() && array.shape(1) == field().points(), "array must be (labels, points)");
  }
  void require_unary() { require(field().has_unary(), "no unary has been set"); }

  MeanField& field() {
    if (!in_use_.load()) throw std::logic_error("enter the field before using it");
    return field_;
  }

  MeanField field_;
  std::atomic<bool> in_use_{false};
};

}  // namespace
}  // namespace atrous

NB_MODULE(_lattice, m) {
  using namespace atrous;
  nb::set_leak_warnings(false);  // daemon threads keep their objects until the process ends
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&end_threads));
  at_fork(nullptr, nullptr, [] { returning = 0; });  // a child has none of its parent's threads

  m.doc() = "The permutohedral lattice and mean-field core of the dense CRF.";

  nb::exception<InUse>(m, "InUseError");

  nb::class_<CancelToken>(m, "CancelToken", "Stops a running inference after its current iteration.")
      .def(nb::init<>())
      .def("cancel", [](CancelToken& self) { self.cancelled.store(true); })
      .def("reset", [](CancelToken& self) { self.cancelled.store(false); })
      .def_prop_ro("cancelled", [](const CancelToken& self) { return self.cancelled.load(); });

  nb::class_<PixelOrder>(m, "PixelOrder")
      .def_static("linear", &make_linear_order, "points"_a)
      .def_static("tiled", &make_tiled_order, "height"_a, "width"_a)
      .def_prop_ro("band", &PixelOrder::band)
      .def_prop_ro("points", &PixelOrder::points);

  nb::class_<Lattice>(m, "Lattice")
      .def_static("from_grid", &build_grid_lattice, "order"_a, "grid"_a, "position_sigmas"_a,
                  "image"_a.noconvert().none(), "channel_sigmas"_a, "normalization"_a, "mask"_a.noconvert().none(),
                  "threads"_a, "kernels"_a = "")
      .def_static("from_features", &build_free_lattice, "order"_a, "features"_a.noconvert(), "normalization"_a,
                  "mask"_a.noconvert().none(), "threads"_a, "kernels"_a = "")
      .def("peak", &find_peak, "threads"_a)
      .def("arrays", &copy_arrays)
      .def_prop_ro("vertices", &Lattice::vertices)
      .def_prop_ro("corners", &Lattice::corners)
      .def_prop_ro("size_bytes", &Lattice::bytes)
      .def_prop_ro("chained", &count_chained);

  nb::class_<BoundMeanField>(m, "MeanField")
      .def(nb::init<std::shared_ptr<PixelOrder>, std::size_t, bool, const std::string&, int>(), "order"_a, "labels"_a,
           "half"_a, "kernels"_a, "threads"_a)
      .def("__enter__", &BoundMeanField::enter)
      .def("__exit__", [](BoundMeanField& self, nb::args) { self.exit(); })
      .def("add_term", &BoundMeanField::add_term, "lattice"_a, "kind"_a, "values"_a.noconvert())
      .def("clear_terms", &BoundMeanField::clear_terms)
      .def("restart", &BoundMeanField::restart, "labels"_a)
      .def("allocate_unary", &BoundMeanField::allocate_unary)
      .def("set_unary", &BoundMeanField::set_unary, "values"_a.noconvert(), "first"_a, "kind"_a, "cap"_a)
      .def("set_coarse_scores", &BoundMeanField::set_coarse_scores, "scores"_a.noconvert(), "width"_a,
           "padded_height"_a, "padded_width"_a, "cap"_a)
      .def("read_unary", &BoundMeanField::read_unary, "output"_a.noconvert())
      .def_prop_ro("labels", &BoundMeanField::labels)
      .def("keep_labels", &BoundMeanField::keep_labels, "kept"_a)
      .def("run", &BoundMeanField::run, "iterations"_a, "keep"_a, "warm"_a, "tolerance"_a, "settle"_a, "token"_a.none())
      .def("load_marginals", &BoundMeanField::load_marginals, "values"_a.noconvert())
      .def("kl_divergence", &BoundMeanField::kl_divergence)
      .def_prop_ro("size_bytes", &BoundMeanField::bytes)
      .def_prop_ro("kernels", &BoundMeanField::kernels);

  m.def("grid_keys", &describe_grid_keys, "grid"_a, "position_sigmas"_a, "image"_a.noconvert().none(),
        "channel_sigmas"_a);
  m.def("feature_keys", &describe_free_keys, "features"_a.noconvert());
  m.def("import_array", &import_array, "array"_a.noconvert());
  m.def("export_array", &export_array, "address"_a, "shape"_a, "kind"_a, "bits"_a, "device_type"_a, "device_id"_a,
        "owner"_a);
  m.def("release_memory", &release_kept_pages, "Give memory kept for the next inference back to the system.");
  m.def("kernel_names", [] {
    nb::list names;
    for (const Kernels* const kernels : runnable_kernels()) names.append(kernels->name);
    return names;
  });
}
