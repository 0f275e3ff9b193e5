#!/usr/bin/env bash
# Sanitizers: the C++ tests of test/native and the conformance suites on an addon inside Node, with ASan and UBSan; the
# C++ tests once more with TSan. This is also where the kernels of AMX run on CPUs without it, over a model of its tiles.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need g++ g++
need make make
need cmake cmake
failed=0

# native_tests BUILD [ISA...]: runs every program of test/native on each instruction set. One that fails says so by its
# exit status; one that prints no counts of its own counts as one test.
native_tests() {
  local build=$1 program isa status
  shift
  for isa in "$@"; do
    for program in "$build"/native_tests_bin/*; do
      echo "-- $(basename "$program"), $isa"
      status=0
      GQA_ISA=$isa timeout 300 "$program" >"$build/output" 2>&1 || status=$?
      cat "$build/output"
      if [ $status -ne 0 ]; then
        failed=1
        echo "exit status $status"
        grep -q ' [1-9][0-9]* failed$' "$build/output" || echo '0 passed, 1 failed'
      elif ! grep -q '^[0-9]* passed, [0-9]* failed$' "$build/output"; then
        echo '1 passed, 0 failed'
      fi
    done
  done
}

npm run --silent build
export GQA_TEST_TARGETS GQA_TEST_LEAN=1 CXX=g++
GQA_TEST_TARGETS=$(node -p "require('./dist/test/conformance/targets').targetsToTest().filter((t) => t !== 'js').join()")
# The suites, once for each vector type. All but the tiles of AMX's target is avx512bf16's, on any CPU that has the latter.
suite_targets=$(node -p "
  const { hasWiderSibling, targetsToTest } = require('./dist/test/conformance/targets');
  targetsToTest().filter((t, _, all) => t !== 'js' && !hasWiderSibling(t, all)).join()")
case $GQA_TEST_TARGETS in
  *amx*) ;;
  *avx512bf16*)
    suite_targets=${suite_targets/avx512bf16/amx}
    GQA_TEST_TARGETS+=,amx
    ;;
esac
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# Node leaks at exit by design.
export ASAN_OPTIONS=detect_leaks=0

echo '== C++ tests with ASan and UBSan'
npx --no-install cmake-js build --out build-asan --log-level warn \
  --CDGQA_SANITIZE=address,undefined --CDGQA_TILE_MODEL=ON --CDGQA_NATIVE_TESTS=ON
native_tests build-asan ${GQA_TEST_TARGETS//,/ }

echo '== the addon with ASan and UBSan inside Node'
GQA_TEST_TARGETS=$suite_targets GQA_PREBUILD=$(addon_folder build-asan) \
  LD_PRELOAD=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so) \
  node dist/test/run.js --targets-only "${slow_run[@]}" "$@" || failed=1

echo '== C++ tests with TSan'
cmake -S . -B build-tsan -DGQA_NATIVE_TESTS=ON -DGQA_SANITIZE=thread -DGQA_SCALAR_ONLY=ON >/dev/null
cmake --build build-tsan --parallel "$(nproc)" --target native_tests >build-tsan/log || { cat build-tsan/log; exit 1; }
native_tests build-tsan scalar
exit $failed
