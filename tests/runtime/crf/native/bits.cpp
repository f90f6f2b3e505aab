// `bits PROBLEMS`: the dense CRF without Python, against marginals of another platform. tools/cross_check.py writes the
// file. Each problem runs with every instruction set of this processor, on one and on three threads; one different bit
// is a failure.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "mean_field.h"

namespace atrous {
namespace {

class Reader {
 public:
  explicit Reader(const char* path) : file_(path, std::ios::binary) {}
  bool has_more() { return file_.peek() != std::ifstream::traits_type::eof(); }
  template <class T>
  std::vector<T> read(std::size_t count) {
    std::vector<T> values(count);
    file_.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T)));
    if (!file_) throw std::runtime_error("the file of problems is missing or truncated");
    return values;
  }
  std::size_t number() { return read<std::uint32_t>(1)[0]; }

 private:
  std::ifstream file_;
};

struct KernelTerm {
  explicit KernelTerm(Reader& reader, const std::vector<std::uint32_t>& grid, std::size_t points) {
    normalization = static_cast<Normalization>(reader.number());
    kind = static_cast<Compatibility>(reader.number());
    const std::size_t value_count = reader.number(), free = reader.number(), channels = reader.number();
    const bool is_bytes = reader.number() != 0;
    values = reader.read<float>(value_count);
    features.points = points;
    features.dimensions = static_cast<int>(free > 0 ? free : grid.size() + channels);
    if (free > 0) {
      floats = reader.read<float>(free * points);
      features.free = floats.data();
      return;
    }
    features.grid = grid;
    features.position_sigmas = reader.read<float>(grid.size());
    features.channel_sigmas = reader.read<float>(channels);
    if (channels == 0) return;
    if (is_bytes) {
      bytes = reader.read<std::uint8_t>(channels * points);
      features.bytes = bytes.data();
    } else {
      floats = reader.read<float>(channels * points);
      features.floats = floats.data();
    }
  }

  Normalization normalization;
  Compatibility kind;
  std::vector<float> values, floats;
  std::vector<std::uint8_t> bytes;
  Features features;  // points into the vectors before it, which stay where they are when a term moves
};

struct Problem {
  explicit Problem(Reader& reader) {
    grid = reader.read<std::uint32_t>(reader.number());
    points = reader.number();
    labels = reader.number();
    options.iterations = static_cast<int>(reader.number());
    storage = reader.number() != 0 ? Storage::kHalf : Storage::kFloat;
    const bool has_mask = reader.number() != 0;
    const std::size_t term_count = reader.number();
    options.settle = reader.read<float>(1)[0];
    if (has_mask) mask = reader.read<std::uint8_t>(points);
    energies = reader.read<float>(labels * points);
    for (std::size_t i = 0; i < term_count; ++i) terms.emplace_back(reader, grid, points);
    expected = reader.read<float>(labels * points);
  }

  bool is_reproduced(const Kernels& kernels, int threads) const {
    const auto order = std::make_shared<const PixelOrder>(grid.size() == 2 ? PixelOrder::tiled(grid[0], grid[1])
                                                                           : PixelOrder::linear(points));
    MeanField field(order, labels, storage, kernels, threads);
    std::vector<float> gaps;
    field.set_unary(energies.data(), static_cast<std::ptrdiff_t>(points), 1, 0, points, UnaryKind::kEnergy,
                    std::numeric_limits<float>::infinity(), gaps);
    for (const KernelTerm& term : terms) {
      auto lattice = std::make_shared<const Lattice>(order, term.features, term.normalization,
                                                     mask.empty() ? nullptr : mask.data(), kernels, threads);
      field.add_term({lattice, term.kind, term.values});
    }
    InferenceReport report;
    return std::memcmp(field.run(options, report).data(), expected.data(), expected.size() * sizeof(float)) == 0;
  }

  std::vector<std::uint32_t> grid;
  std::size_t points, labels;
  Storage storage;
  InferenceOptions options;
  std::vector<std::uint8_t> mask;
  std::vector<float> energies;
  std::vector<KernelTerm> terms;
  std::vector<float> expected;  // labels x points
};

int run_all(const char* path) {
  Reader reader(path);
  int problems = 0, different = 0;
  for (; reader.has_more(); ++problems) {
    const Problem problem(reader);
    for (const Kernels* const kernels : runnable_kernels()) {
      for (const int threads : {1, 3}) {
        if (problem.is_reproduced(*kernels, threads)) continue;
        ++different;
        std::printf("problem %d differs: %s, %d threads\n", problems, kernels->name, threads);
      }
    }
  }
  std::printf("%d problems,", problems);
  for (const Kernels* const kernels : runnable_kernels()) std::printf(" %s", kernels->name);
  std::printf(" on 1 and 3 threads: %d differ\n", different);
  return problems > 0 && different == 0 ? 0 : 1;
}

}  // namespace
}  // namespace atrous

int main(int count, char** arguments) {
  try {
    return count == 2 ? atrous::run_all(arguments[1]) : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bits: %s\n", error.what());
    return 1;
  }
}
