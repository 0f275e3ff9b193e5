#!/usr/bin/env bash
# A clone on a machine without a compiler: npm ci succeeds and names what is missing, npm start prints the same text.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm start --silent >"$work/expected" 2>/dev/null
path_without_compilers "$work/bin"
mkdir "$work/clone"
git archive HEAD | tar -x -C "$work/clone"
cd "$work/clone"
export PATH=$work/bin
npm ci --no-audit --no-fund 2>&1 | tee "$work/install"
grep -q 'gqa: cannot build the native addon (not found: .*cmake.*); the JS backend will be used' "$work/install"
[ ! -e build ]
reason=$(node -p "require('./dist/lib').backend().reason")
echo "$reason"
[[ $reason == *'g++ or clang++'* ]]
npm start --silent >"$work/printed" 2>/dev/null
diff "$work/expected" "$work/printed"
