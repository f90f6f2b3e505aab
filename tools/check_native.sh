#!/usr/bin/env bash
# Builds the dense CRF's extension with each sanitizer, runs its tests and its fuzz target, and fails on a report.
#
#   tools/check_native.sh [address|thread ...]      (both by default; ATROUS_PYTHON names the interpreter)
#
# "address" also checks for undefined behavior, and takes two minutes on two cores, most of them to compile.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${ATROUS_PYTHON:-.venv/bin/python}
PATH="$(cd "$(dirname "$(command -v "$python")")" && pwd):$PATH" # cmake may be there
runs=("$@")
((${#runs[@]})) || runs=(address thread)
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')

for run in "${runs[@]}"; do
  case $run in
    address) sanitizers=address,undefined library=libasan.so ;;
    thread) sanitizers=thread library=libtsan.so ;;
    *) echo "unknown sanitizer: $run (address or thread)" >&2; exit 2 ;;
  esac
  build=build/native/$run
  package=$build/package
  echo "== $sanitizers"
  cmake -S . -B "$build/cmake" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DATROUS_SANITIZE="$sanitizers" \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" >/dev/null
  cmake --build "$build/cmake" --parallel 2 >/dev/null

  # A package of links to the sources, with the instrumented extension instead of the installed one.
  rm -rf "$package" && mkdir -p "$package/atrous/runtime/crf"
  ln -s "$PWD"/atrous/* "$PWD/scripts" "$PWD/proto" "$PWD/converter" "$package/atrous/"
  for entry in runtime/*; do [ "$entry" = runtime/crf ] || ln -s "$PWD/$entry" "$package/atrous/$entry"; done
  for entry in runtime/crf/*; do
    case $entry in *.so) ;; *) ln -s "$PWD/$entry" "$package/atrous/$entry" ;; esac
  done
  cp "$build"/cmake/runtime/crf/src/_lattice*.so "$package/atrous/runtime/crf/_lattice$suffix"

  # Python and its other libraries are not instrumented, so leaks are not reported. The first entry of the path shadows
  # an installed atrous. libstdc++ is preloaded too: a sanitizer resolves the throwing of exceptions when it starts,
  # before the extension loads it. Reports go to files: pytest captures output, which is lost when the process aborts.
  rm -f "$build"/report.*
  env LD_PRELOAD="$(g++ -print-file-name=$library) $(g++ -print-file-name=libstdc++.so)" PYTHONPATH="$PWD/$package:$PWD" PYTHONMALLOC=malloc \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 ATROUS_NATIVE_CHECK="$run" \
    ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:log_path=$PWD/$build/report" \
    UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:log_path=$PWD/$build/report" \
    TSAN_OPTIONS="halt_on_error=1:report_signal_unsafe=0:ignore_noninstrumented_modules=1:log_path=$PWD/$build/report" \
    "$python" tools/check_native.py || { code=$?; cat "$build"/report.* >&2 || true; exit "$code"; }
done
echo "sanitizers: clean"
