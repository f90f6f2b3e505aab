# `make demo` and `make test` are the README's commands. All targets use the virtual environment in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= .ci/constraints.txt
OUT ?= out
SHARED ?= $(firstword $(wildcard $(ATROUS_SHARED) ../shared))
RTX ?= build/rtx
OPENCV5 ?= build/opencv5
RTX_TESTS := $(wildcard tests/runtime/backends/tensorrt/test_nvidia_*.py) \
	tests/runtime/backends/tensorrt/rtx/test_wheel.py tests/scripts/test_build_rtx.py
PACKAGES := proto converter runtime scripts

export PIP_CONSTRAINT := $(abspath $(CONSTRAINTS))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test check types lint conformance conformance-quick recordings readme wheel schema rtx-check opencv-check check-native import-root clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## the virtual environment with atrous in it

$(VENV)/.ready: pyproject.toml CMakeLists.txt $(wildcard runtime/crf/src/*) $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[convert,bench,openvino,test,check]'
	@touch $@

demo: setup ## convert the built-in miniature, segment its scenes, leave out/demo.png
	$(BIN)/atrous demo -o $(OUT)

test: setup ## the tests, without the full sweep over the recordings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not conformance and not gpu"

check: lint types ## style, word list and strict types

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.check_words
	$(BIN)/clang-format --dry-run -Werror runtime/crf/src/*.cpp runtime/crf/src/*.h runtime/crf/src/*.inl tests/runtime/crf/native/*.cpp

import-root: ## build/typing: links from which the source tree imports as atrous without an installation
	@rm -rf build/typing && mkdir -p build/typing/atrous
	@ln -s $(wildcard $(CURDIR)/atrous/*) $(foreach package,$(PACKAGES),$(CURDIR)/$(package)) build/typing/atrous/

types: setup import-root
	MYPYPATH=build/typing $(BIN)/mypy --strict --namespace-packages --explicit-package-bases \
		-p atrous -p tools

conformance: setup recordings ## every recording of real Caffe, blob by blob, and the long tests
	@mkdir -p build
	$(BIN)/python -m tools.conformance $(SHARED) --json build/conformance.json
	$(BIN)/python -m pytest -q -m conformance --ignore tests/converter/check/test_conformance.py

conformance-quick: setup recordings ## the recordings of tiny nets, trained weights and DeepLab
	$(BIN)/python -m tools.conformance $(SHARED) --kind tiny --kind real
	$(BIN)/python -m tools.conformance $(SHARED) --kind nets --only 'deeplab*'

rtx-check: $(RTX)/.ready ## NVIDIA's parser, builder and bindings, without a GPU (installs 150 MB; Linux, x86-64)
	OMP_NUM_THREADS=1 $(RTX)/bin/python -m pytest -q -n 2 --dist loadfile -m "not conformance" $(RTX_TESTS)

# an environment of its own on top of $(VENV), so that nothing else sees NVIDIA's packages
$(RTX)/.ready: $(VENV)/.ready tools/nvidia_check/bindings.txt
	$(BIN)/python -m venv $(RTX)
	$(BIN)/python -c 'import site; print("import site; site.addsitedir(\"%s\")" % site.getsitepackages()[0])' \
		> "$$($(RTX)/bin/python -c 'import site; print(site.getsitepackages()[0])')/venv.pth"
	$(RTX)/bin/python -m pip install --quiet 'atrous[rtx-check]'
	$(RTX)/bin/python -c 'import sys; from tools.nvidia_check.harness import find_missing; sys.exit(find_missing() or 0)'
	while read -r version requirement; do \
		$(RTX)/bin/python -m pip install --quiet --no-deps --upgrade --target "$(RTX)/bindings/$$version" "$$requirement" || exit; \
	done < tools/nvidia_check/bindings.txt
	@touch $@

opencv-check: $(OPENCV5)/.ready ## OpenCV 5 as a reader of our ONNX (installs 60 MB)
	ATROUS_OPENCV=$(abspath $(OPENCV5)/bin/python) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q tests/converter/check/test_opencv.py tests/scripts/test_cookbook.py

# an environment of its own: the tests read Caffe files in OpenCV 4, which has the same import name
$(OPENCV5)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(OPENCV5)
	PIP_CONSTRAINT= $(OPENCV5)/bin/python -m pip install --quiet opencv-python-headless==5.0.0.93
	@touch $@

recordings:
	@test -n "$(SHARED)" || { echo "the recordings are not beside this checkout: set ATROUS_SHARED"; exit 2; }

readme: setup ## run the README's commands as a reader would
	$(BIN)/python -m tools.run_readme README.md

wheel: setup ## build the wheel into dist/ and check what is in it
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m tools.check_wheel dist

schema: setup ## compile proto/caffe.proto to proto/caffe.pb
	$(BIN)/python -m grpc_tools.protoc -Iproto --descriptor_set_out=proto/caffe.pb proto/caffe.proto

check-native: setup ## the C++ extension under sanitizers; SANITIZERS=address or thread for one of the two
	tools/check_native.sh $(SANITIZERS)

clean: ## remove what was built
	rm -rf build dist $(OUT) $(VENV)
