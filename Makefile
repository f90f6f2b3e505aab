# `make demo` and `make test` are the README's commands. All targets use the virtual environment in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= .ci/constraints.txt
OUT ?= out
SHARED ?= $(firstword $(wildcard $(ATROUS_SHARED) ../shared))
RTX ?= build/rtx
OPENCV5 ?= build/opencv5
CUDA ?= build/cuda
RAY ?= build/ray
GRADIO ?= build/gradio
RAY_TESTS := tests/runtime/batch/test_s3.py tests/runtime/batch/test_ray.py \
	tests/runtime/evaluation/test_ray.py
RELEASE ?= build/release
SITE ?= build/site-env
CROSS ?= build/cross-env
ARM64 ?= build/arm64
FUZZ_SECONDS ?= 240
PYDENSECRF ?= build/pydensecrf
PYDENSECRF_REPOSITORY ?= https://github.com/lucasb-eyer/pydensecrf
TRITON ?= build/triton
RTX_TESTS := $(wildcard tests/runtime/backends/tensorrt/test_nvidia_*.py) \
	tests/runtime/backends/tensorrt/rtx/test_wheel.py tests/scripts/test_build_rtx.py
PACKAGES := proto converter runtime scripts

export PIP_CONSTRAINT := $(abspath $(CONSTRAINTS))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# every target without a slash or a dot is a command, not a file
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# lets an environment of its own see the packages of $(VENV) behind its own
define share-venv
$(BIN)/python -c 'import site; print("import site; site.addsitedir(\"%s\")" % site.getsitepackages()[0])' \
	> "$$($(1)/bin/python -c 'import site; print(site.getsitepackages()[0])')/venv.pth"
endef

setup: $(VENV)/.ready ## the virtual environment with atrous in it

$(VENV)/.ready: pyproject.toml CMakeLists.txt $(wildcard runtime/crf/src/*) $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[convert,bench,openvino,serve,test,check]'
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
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.gpu.yaml
	$(BIN)/kubernetes-validate --strict --quiet examples/kubernetes/*.yaml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/clang-format --dry-run -Werror runtime/crf/src/*.cpp runtime/crf/src/*.h runtime/crf/src/*.inl tests/runtime/crf/native/*.cpp runtime/crf/gpu/*.cu tools/cuda_on_cpu/*.h

import-root: ## build/typing: links from which the source tree imports as atrous without an installation
	@rm -rf build/typing && mkdir -p build/typing/atrous
	@ln -s $(wildcard $(CURDIR)/atrous/*) $(foreach package,$(PACKAGES),$(CURDIR)/$(package)) build/typing/atrous/

types: setup import-root
	MYPYPATH=build/typing $(BIN)/mypy --strict --namespace-packages --explicit-package-bases \
		-p atrous -p tools

conformance: setup recordings ## every recording of real Caffe, blob by blob, and the long tests
	@mkdir -p build
	$(BIN)/python -m tools.conformance $(SHARED) --json build/conformance.json
	$(MAKE) conformance-tests

conformance-tests: setup ## the tests too long for `make test`
	$(BIN)/python -m pytest -q -m conformance --ignore tests/converter/check/test_conformance.py

conformance-quick: setup recordings ## the recordings of tiny nets, trained weights and DeepLab
	$(BIN)/python -m tools.conformance $(SHARED) --kind tiny --kind real
	$(BIN)/python -m tools.conformance $(SHARED) --kind nets --only 'deeplab*'

rtx-check: $(RTX)/.ready ## NVIDIA's parser, builder and bindings, without a GPU (installs 150 MB; Linux, x86-64)
	OMP_NUM_THREADS=1 $(RTX)/bin/python -m pytest -q -n 2 --dist loadfile -m "not conformance" $(RTX_TESTS)

# an environment of its own on top of $(VENV), so that nothing else sees NVIDIA's packages
$(RTX)/.ready: $(VENV)/.ready tools/nvidia_check/bindings.txt
	$(BIN)/python -m venv $(RTX)
	$(call share-venv,$(RTX))
	$(RTX)/bin/python -m pip install --quiet 'atrous[rtx-check]'
	$(RTX)/bin/python -c 'import sys; from tools.nvidia_check.harness import find_missing; sys.exit(find_missing() or 0)'
	while read -r version requirement; do \
		$(RTX)/bin/python -m pip install --quiet --no-deps --upgrade --target "$(RTX)/bindings/$$version" "$$requirement" || exit; \
	done < tools/nvidia_check/bindings.txt
	@touch $@

cuda-check: $(CUDA)/.ready ## NVRTC on the dense CRF's GPU kernels, and the calls of cuda-bindings, without a GPU (installs 200 MB)
	OMP_NUM_THREADS=1 $(CUDA)/bin/python -m pytest -q tests/runtime/crf/gpu/test_compiler.py \
		tests/runtime/crf/gpu/test_driver.py tests/runtime/backends/tensorrt/test_driver.py

# an environment of its own on top of $(VENV), as for rtx-check
$(CUDA)/.ready: $(VENV)/.ready
	$(BIN)/python -m venv $(CUDA)
	$(call share-venv,$(CUDA))
	$(CUDA)/bin/python -m pip install --quiet 'atrous[cuda-check]'
	@touch $@

opencv-check: $(OPENCV5)/.ready ## OpenCV 5 as a reader of our ONNX (installs 70 MB)
	ATROUS_OPENCV=$(abspath $(OPENCV5)/bin/python) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q -m "not conformance" tests/converter/check/test_opencv.py \
		tests/converter/layers/test_detection_forms.py tests/converter/test_random_exports.py \
		tests/scripts/test_cookbook.py tests/examples

# an environment of its own: the tests read Caffe files in OpenCV 4, which has the same import name
$(OPENCV5)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(OPENCV5)
	PIP_CONSTRAINT= $(OPENCV5)/bin/python -m pip install --quiet opencv-contrib-python-headless==5.0.0.93
	@touch $@

pydensecrf-check: $(PYDENSECRF)/.ready ## the drop-in against the original pydensecrf, and its tests (compiles it: 70 s)
	ATROUS_PYDENSECRF=$(abspath $(PYDENSECRF)/source) OMP_NUM_THREADS=1 $(PYDENSECRF)/bin/python -m pytest -q -n 2 \
		tests/runtime/crf/test_against_pydensecrf.py tests/runtime/crf/test_published_examples.py \
		tests/scripts/test_bench_crf.py

# an environment of its own on top of $(VENV): the other tests run without the original, as most users do; its tests
# and examples are in its repository, without which only those in the archive on PyPI run
$(PYDENSECRF)/.ready: $(VENV)/.ready
	$(BIN)/python -m venv $(PYDENSECRF)
	$(call share-venv,$(PYDENSECRF))
	$(PYDENSECRF)/bin/python -m pip install --quiet 'atrous[pydensecrf]'
	rm -rf $(PYDENSECRF)/source
	git clone --quiet --depth 1 $(PYDENSECRF_REPOSITORY) $(PYDENSECRF)/source || { \
		mkdir -p $(PYDENSECRF)/source && \
		$(PYDENSECRF)/bin/python -m pip download --quiet --no-deps --no-binary :all: -d $(PYDENSECRF)/source pydensecrf2 && \
		tar -xzf $(PYDENSECRF)/source/pydensecrf2-*.tar.gz -C $(PYDENSECRF)/source --strip-components 1; }
	@touch $@

triton-check: $(TRITON)/.ready ## exported repositories in a real Triton, without its container (installs 75 MB; Linux, x86-64)
	ATROUS_NUMPY2_PYTHON=$(abspath $(BIN)/python) OMP_NUM_THREADS=1 \
		$(TRITON)/bin/python -m pytest -q tests/runtime/export tests/runtime/serve/test_protocol_table.py \
		tests/runtime/serve/test_tritonclient.py

# an environment of its own on top of $(VENV): this Triton takes no NumPy 2, its client no protobuf 7
$(TRITON)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(TRITON)
	PIP_CONSTRAINT= $(TRITON)/bin/python -m pip install --quiet 'numpy<2' 'tritonclient[grpc,http]==2.73.0'
	PIP_CONSTRAINT= $(TRITON)/bin/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0
	$(call share-venv,$(TRITON))
	@touch $@

ray-check: $(RAY)/.ready ## labeling on Ray, and into a local S3 server (installs 400 MB)
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest -q $(RAY_TESTS)

# an environment of its own on top of $(VENV): Ray with pandas and pyarrow is larger than all the rest of it
$(RAY)/.ready: $(VENV)/.ready
	$(BIN)/python -m venv $(RAY)
	$(call share-venv,$(RAY))
	$(RAY)/bin/python -m pip install --quiet 'atrous[ray-check]'
	@touch $@

gradio-check: $(GRADIO)/.ready ## the Gradio example, asked by Gradio's client (installs 240 MB)
	OMP_NUM_THREADS=1 $(GRADIO)/bin/python -m pytest -q -rs tests/examples -k gradio

# an environment of its own on top of $(VENV), as for ray-check
$(GRADIO)/.ready: $(VENV)/.ready
	$(BIN)/python -m venv $(GRADIO)
	$(call share-venv,$(GRADIO))
	$(GRADIO)/bin/python -m pip install --quiet 'gradio>=5'
	@touch $@

recordings:
	@test -n "$(SHARED)" || { echo "the recordings are not beside this checkout: set ATROUS_SHARED"; exit 2; }

readme: setup ## run the commands of the README and the tutorials as a reader would
	for page in README.md docs/tutorials/*.md; do $(BIN)/python -m tools.run_readme $$page || exit; done

notebooks: setup ## run the example notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --nbmake --nbmake-timeout=600 -p no:cacheprovider examples/notebooks

wheel: setup ## build the wheel into dist/ and check what is in it
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m tools.check_wheel dist

sdist: $(RELEASE)/.ready ## the source archive into dist/, and its README and metadata checked
	$(RELEASE)/bin/python -m build --quiet --sdist --outdir dist
	$(RELEASE)/bin/twine check --strict dist/*.tar.gz

wheels: $(RELEASE)/.ready ## a wheel for each installed Python 3.10 to 3.12 into dist/, repaired by auditwheel
	@rm -rf build/wheels && mkdir -p build/wheels dist
	for python in $$($(RELEASE)/bin/python -m tools.try_wheels --list); do \
		$(RELEASE)/bin/uv build --quiet --wheel --python $$python --out-dir build/wheels || exit; \
	done
	$(call repair-wheels,build/wheels)

# auditwheel names the oldest glibc that a wheel runs on
define repair-wheels
	PATH="$(abspath $(RELEASE)/bin):$$PATH" $(RELEASE)/bin/auditwheel repair --wheel-dir dist $(1)/*.whl
	$(RELEASE)/bin/abi3audit --strict dist/*abi3*.whl
	$(RELEASE)/bin/twine check --strict dist/*.whl
	$(BIN)/python -m tools.check_wheel dist
endef

# CMake and make run here, Python in qemu; the folder of its headers comes last, because the compiler has its own C library
cross-wheel: $(ARM64)/.ready ## the wheel for Linux on aarch64, Python 3.12 and newer, into dist/; tried in qemu
	@rm -rf build/cross-wheels && mkdir -p dist
	PATH="$(abspath $(BIN)):$$PATH" CMAKE_GENERATOR="Unix Makefiles" CMAKE_BUILD_PARALLEL_LEVEL=$$(nproc) \
		CXX=aarch64-linux-gnu-g++ CXXFLAGS="-idirafter $(abspath $(ARM64))/usr/include" \
		CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64" \
		$(RELEASE)/bin/uv build --quiet --wheel --python $(ARM64)/usr/bin/python --out-dir build/cross-wheels
	$(call repair-wheels,build/cross-wheels)
	$(RELEASE)/bin/python -m tools.try_wheels dist --python $(abspath $(ARM64))/usr/bin/python

$(ARM64)/.ready: $(RELEASE)/.ready tools/debian_python.py
	$(BIN)/python -m tools.debian_python $(ARM64)
	@touch $@

try-wheels: $(RELEASE)/.ready ## install the wheels of dist/ in clean environments of each Python, and run them
	$(RELEASE)/bin/python -m tools.try_wheels dist --types

sbom: $(RELEASE)/.ready ## dist/atrous.cdx.json: the packages of the core and of `atrous[convert,cpu]`, with licenses
	@rm -rf build/sbom && mkdir -p dist
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet '.[convert,cpu]'
	$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file dist/atrous.cdx.json build/sbom/bin/python

licenses: $(RELEASE)/.ready ## the license of each package that the core and the extras install; an error if one is not permissive
	$(RELEASE)/bin/python -m tools.list_licenses

release: check test licenses sdist wheels cross-wheel try-wheels sbom ## everything but the tag and the upload
	@ls -l dist

$(RELEASE)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(RELEASE)
	$(call share-venv,$(RELEASE))
	$(RELEASE)/bin/python -m pip install --quiet 'atrous[release]'
	@touch $@

schema: setup ## compile proto/caffe.proto and the server's protocol to their .pb files
	$(BIN)/python -m grpc_tools.protoc -Iproto --descriptor_set_out=proto/caffe.pb proto/caffe.proto
	$(BIN)/python -m grpc_tools.protoc -Iruntime/serve --descriptor_set_out=runtime/serve/open_inference.pb \
		runtime/serve/open_inference.proto

check-native: setup ## the C++ extension under sanitizers; SANITIZERS=address or thread for one of the two
	tools/check_native.sh $(SANITIZERS)

cross-check: $(CROSS)/.ready ## the dense CRF built for aarch64, Windows and macOS, and run in emulators (installs 100 MB)
	PATH="$(abspath $(BIN)):$$PATH" $(CROSS)/bin/python -m tools.cross_check

# an environment of its own on top of $(VENV): a whole compiler, which only this needs; besides, Debian's packages
# g++-aarch64-linux-gnu and qemu-user, and wine if Windows' programs shall run
$(CROSS)/.ready: $(VENV)/.ready
	$(BIN)/python -m venv $(CROSS)
	$(call share-venv,$(CROSS))
	$(CROSS)/bin/python -m pip install --quiet ziglang==0.17.1
	@touch $@

site: $(SITE)/.ready import-root ## the documentation as a site in build/site; every warning is an error
	$(BIN)/python -m tools.stage_site build/site-source
	$(SITE)/bin/zensical build --clean --strict

$(SITE)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet 'zensical==0.0.73' 'mkdocstrings-python>=2,<3' ruff==0.17.6
	@touch $@

fuzz: setup ## fuzz each reader with random mutations for FUZZ_SECONDS
	for suffix in $$($(BIN)/python -c 'from tools.fuzz_readers import SUFFIXES; print(*SUFFIXES)'); do \
		$(BIN)/python -m tools.fuzz_readers tests/hostile --suffix $$suffix --seconds $(FUZZ_SECONDS) --seed $$(date +%s) || exit; \
	done

gpu-check: setup ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pip install --quiet '.[gpu]'
	$(BIN)/python -m pytest -q -m gpu

# an editable installation: the tests need the folders beside the package
test-lowest: $(RELEASE)/.ready ## the tests with the oldest versions that pyproject.toml allows (torch as in CI)
	$(call test-resolved,lowest-direct)

test-newest: $(RELEASE)/.ready ## the tests with the newest versions (torch as in CI)
	$(call test-resolved,highest)

define test-resolved
	$(RELEASE)/bin/uv venv --quiet --clear --seed --python $(BIN)/python build/$(1)
	$(RELEASE)/bin/uv pip install --quiet --python build/$(1) --resolution $(1) --override $(CONSTRAINTS) \
		--requirements pyproject.toml $(foreach extra,convert bench openvino hdf5 serve test,--extra $(extra))
	$(RELEASE)/bin/uv pip install --quiet --python build/$(1) --no-deps --editable .
	OMP_NUM_THREADS=1 build/$(1)/bin/python -m pytest -q -n 2 -m "not conformance and not gpu" \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning
endef

clean: ## remove what was built
	rm -rf build dist $(OUT) $(VENV)
