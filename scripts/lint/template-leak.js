'use strict';
// A shared inline function instantiated in an instruction-set file may be the copy that the linker keeps for the whole
// addon, and then a plain CPU executes AVX-512. So the objects of these files must define no weak or unique symbol.
//
//   node scripts/lint/template-leak.js build-arm64    checks a build by itself
const { spawnSync } = require('node:child_process');
const { existsSync, readFileSync, readdirSync } = require('node:fs');
const { join } = require('node:path');

/** Lines of `nm --defined-only` that name weak (W, V) or unique (u) symbols. */
function sharedSymbols(nmOutput) {
  return nmOutput.split('\n').filter((line) => / [WVu] /.test(line));
}

/** Sources that are compiled with flags of their own: all that native/targets/*.gyp list. */
function flaggedSources(root) {
  const folder = join('native', 'targets');
  const lists = readdirSync(join(root, folder)).filter((file) => file.endsWith('.gyp'));
  return lists.flatMap((file) => {
    const { targets } = JSON.parse(readFileSync(join(root, folder, file), 'utf8'));
    return targets.map((target) => join(folder, `${target.target_name}.cc`));
  });
}

function checkLeaks(root, build = 'build') {
  const folder = join(build, 'CMakeFiles', 'gqa_core.dir');
  const objects = flaggedSources(root)
    .map((source) => join(root, folder, `${source}.o`))
    .filter(existsSync);
  if (objects.length === 0) console.log(`no objects in ${folder}, skipped (npm run build:native)`);
  return objects.flatMap((object) => {
    const { status, stdout, error } = spawnSync('nm', ['--defined-only', '-C', object], {
      encoding: 'utf8',
    });
    if (status !== 0) return [`nm failed on ${object}: ${error?.message ?? `status ${status}`}`];
    return sharedSymbols(stdout).map((line) => `${object}: ${line.trim()}`);
  });
}

module.exports = { sharedSymbols, checkLeaks };

if (require.main === module) {
  const leaks = checkLeaks(process.cwd(), process.argv[2]);
  for (const leak of leaks) console.log(leak);
  process.exitCode = leaks.length === 0 ? 0 : 1;
}
