#!/usr/bin/env bash
# Sanitizers: the conformance suites on an addon with ASan and UBSan inside Node, and the C++ tests of test/native with
# ASan and UBSan, then with TSan.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need g++ g++
need cmake cmake

failed=0

# native_tests SANITIZERS BUILD: builds and runs every test/native/*.cc; each is a program that fails by its exit status.
native_tests() {
  local passed=0 broken=0 test
  echo "== C++ tests with $1"
  cmake -S . -B "$2" -DCMAKE_CXX_COMPILER=g++ -DGQA_NATIVE_TESTS=ON -DGQA_SANITIZE="$1" >/dev/null
  cmake --build "$2" --target native_tests >"$2/log" || { cat "$2/log"; failed=1; return; }
  for test in "$2"/native_tests_bin/*; do
    if timeout 300 "$test"; then passed=$((passed + 1)); else
      echo "$test failed"
      broken=$((broken + 1)) failed=1
    fi
  done
  echo "$passed passed, $broken failed"
}

export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
native_tests address,undefined build-asan-native
native_tests thread build-tsan-native

echo '== the addon with address,undefined inside Node'
npm run --silent build
CXX=g++ npx --no-install cmake-js build --out build-asan --log-level warn --CDGQA_SANITIZE=address,undefined
GQA_PREBUILD=$(addon_folder build-asan)
GQA_TEST_TARGETS=$(node -p "require('./dist/test/conformance/targets').targetsToTest().filter((t) => t !== 'js').join()")
export GQA_PREBUILD GQA_TEST_TARGETS GQA_TEST_LEAN=1
# Node itself leaks at exit by design.
export ASAN_OPTIONS=detect_leaks=0
LD_PRELOAD=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so) \
  node dist/test/run.js --targets-only "$@" || failed=1
exit $failed
