#!/usr/bin/env bash
# Runs the conformance suites as on older x86 CPUs, under qemu-user: Haswell has AVX2 and no AVX-512, Nehalem no AVX.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
if [ "$(uname -m)" != x86_64 ]; then
  echo 'test:avx2: not an x86-64 machine, skipped'
  exit 0
fi
need qemu-x86_64-static qemu-user-static

npm run --silent build
npx --no-install cmake-js build --log-level warn

node=$(readlink -f "$(command -v node)")
export GQA_TEST_LEAN=1
failed=0
for pair in Haswell:avx2 Nehalem:scalar; do
  cpu=${pair%:*} isa=${pair#*:}
  echo "== qemu-x86_64 -cpu $cpu"
  emulated=(qemu-x86_64-static -cpu "$cpu" "$node")
  expect_isa "$isa" "${emulated[@]}"
  GQA_TEST_NODE="${emulated[*]}" GQA_TEST_TARGETS=$isa node dist/test/run.js --targets-only "$@" || failed=1
done
exit $failed
