#!/usr/bin/env bash
# npm start prints text from the embedded model, the same on the JS backend as on the native one.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

GQA_BACKEND=native npm start --silent >"$work/native" 2>"$work/status"
cat "$work/native" "$work/status"
[ "$(wc -w <"$work/native")" -ge 20 ] || { echo 'npm start printed fewer than 20 words'; exit 1; }
grep -q 'tok/s\|tokens/s' "$work/status" || { echo 'npm start did not report tokens/s'; exit 1; }
GQA_BACKEND=js npm start --silent >"$work/js" 2>/dev/null
diff "$work/native" "$work/js" || { echo 'the JS backend printed other text'; exit 1; }
