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

# on_cpu CPU ISA [jest arguments]
on_cpu() {
  local emulated=(qemu-x86_64-static -cpu "$1" "$node") isa=$2
  echo "== qemu-x86_64 -cpu $1"
  shift 2
  expect_isa "$isa" "${emulated[@]}"
  GQA_TEST_NODE="${emulated[*]}" GQA_TEST_TARGETS=$isa node dist/test/run.js --targets-only "${slow_run[@]}" "$@" || failed=1
}

# Both targets are tested natively too, whole: what counts here is that no newer instruction reaches them, so what
# brings no kernel of its own is left out.
repeated='test/(lifecycle|property|model)/|conformance/(cache|shapes|determinism|sharing|memory|random|positions)'
# Two at a time, as most of a run is one thread emulated.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ on_cpu Nehalem scalar conformance/{target,blocks,layers,options} "$@"; exit $failed; } >"$log" 2>&1 &
# Without the features that qemu would warn about.
on_cpu Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid avx2 --testPathIgnorePatterns="$repeated" "$@"
wait $! || failed=1
cat "$log"
exit $failed
