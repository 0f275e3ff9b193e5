#!/usr/bin/env bash
# What npm would publish: its files, and its use from CommonJS, ESM and TypeScript in an empty folder; built at
# install, without any install script, and from a prebuild on a machine without a compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CCACHE_BASEDIR=$work
# In a copy: a build for packing must not take away the one that is here.
mkdir "$work/clone"
git archive HEAD | tar -x -C "$work/clone"
ln -s "$root/node_modules" "$work/clone/node_modules"
cd "$work/clone"

# pack NAME: packs the package into $work/NAME.tgz.
pack() {
  npm pack --silent --pack-destination "$work" >"$work/packed"
  mv "$work/$(tail -n 1 "$work/packed")" "$work/$1.tgz"
}

# install_into FOLDER TARBALL [npm arguments]: an empty project that depends on the package alone.
install_into() {
  mkdir "$work/$1"
  cd "$work/$1"
  npm init -y >/dev/null
  npm install --no-audit --no-fund --loglevel=error "${@:3}" "$work/$2.tgz"
}

echo '== files'
pack source
tar -tzf "$work/source.tgz" | sed 's|^package/||' | sort >"$work/files"
if grep -E '^(test|bench|dist/test|dist/bench|build|node_modules|\.)' "$work/files"; then
  echo 'files that do not belong into the package'
  exit 1
fi
for file in dist/lib/index.js dist/lib/index.mjs dist/lib/index.d.ts dist/lib/index.d.mts dist/lib/cli/main.js \
  native/ops.h native/sources.gypi native/targets/x64.gyp CMakeLists.txt binding.gyp scripts/install.js scripts/toolchain.js \
  models/stories/config.json models/stories/tokenizer.json README.md LICENSE; do
  grep -qx "$file" "$work/files" || { echo "$file is not in the package"; exit 1; }
done
echo "$(wc -l <"$work/files") files, $(stat -c %s "$work/source.tgz") bytes packed"

echo '== installed from source'
install_into source source --foreground-scripts
cat >use.cjs <<'JS'
const gqa = require('gqa');
const { Tensor, attention, backend } = gqa;
const q = Tensor.from([1, 0, 0, 1], [1, 1, 2, 2]);
const kv = Tensor.from([1, 2], [1, 1, 1, 2]);
const out = Array.from(attention(q, kv, kv).toFloat32());
if (out.join() !== '1,2,1,2') throw new Error(`attention gave ${out}`);
const kind = process.argv[2];
if (backend().kind !== kind) throw new Error(`backend ${JSON.stringify(backend())}, expected ${kind}`);
import('gqa').then((esm) => {
  for (const name of Object.keys(gqa)) {
    if (gqa[name] !== esm[name]) throw new Error(`${name} differs between CommonJS and ESM`);
  }
  console.log(backend());
});
JS
cat >use.mjs <<'JS'
import { GqaError, KvCache, Tensor, attention, loadModel } from 'gqa';
const cache = new KvCache({ layers: 1, kvHeads: 1, headDim: 2, capacity: 4, dtype: 'f32' });
const sequence = cache.sequence();
const kv = Tensor.from([1, 2], [1, 1, 2]);
sequence.append(0, kv, kv);
const out = attention(Tensor.from([1, 0], [1, 1, 1, 2]), sequence.layer(0));
if (Array.from(out.toFloat32()).join() !== '1,2') throw new Error('attention over the cache');
try {
  await loadModel('/nowhere');
  throw new Error('loadModel took a folder that is not there');
} catch (error) {
  if (!(error instanceof GqaError)) throw error;
}
JS
node use.cjs native
node use.mjs
npx --no-install gqa info --json >info.json
node -e "if (JSON.parse(require('fs').readFileSync('info.json')).backend === undefined) process.exit(1)"
npx --no-install gqa generate --max-tokens 20 2>/dev/null | tee story
[ -s story ]

echo '== TypeScript, as ESM and as CommonJS'
cat >use.mts <<'TS'
import { KvCache, Tensor, attention, backend } from 'gqa';
const q = Tensor.zeros([1, 1, 2, 8]);
const out: Float32Array = attention(q, q, q, { causal: true }).toFloat32();
const kind: 'native' | 'js' = backend().kind;
const cache = new KvCache({ layers: 1, kvHeads: 1, headDim: 8, capacity: 16, dtype: 'bf16' });
// @ts-expect-error a dtype that is not there
new KvCache({ layers: 1, kvHeads: 1, headDim: 8, capacity: 16, dtype: 'f8' });
console.log(out.length, kind, cache.sequence().length);
TS
sed "s/^import \(.*\) from 'gqa';/import gqa = require('gqa');\nconst \1 = gqa;/" use.mts >use.cts
for resolution in node16 nodenext; do
  node "$root/node_modules/typescript/bin/tsc" --strict --noEmit --module "$resolution" --target es2022 \
    --lib es2022,esnext.disposable --types node --typeRoots "$root/node_modules/@types" use.mts use.cts
done
node "$root/node_modules/typescript/bin/tsc" --strict --noEmit --module esnext --moduleResolution bundler \
  --target es2022 --lib es2022,esnext.disposable --types node --typeRoots "$root/node_modules/@types" use.mts

echo '== installed without install scripts'
install_into scriptless source --ignore-scripts
cp ../source/use.* .
node use.cjs js
node use.mjs

echo '== installed from a prebuild, without a compiler'
cd "$work/clone"
npm run --silent build:prebuilds >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
find prebuilds -name '*.node' | grep linux
pack prebuilt
path_without_compilers "$work/bin"
(
  export PATH=$work/bin
  install_into prebuilt prebuilt --foreground-scripts
  cp ../source/use.* .
  node use.cjs native
  node use.mjs
)
