'use strict';
// What stands between this machine and a native build. Used by the install step and by lib/backend, so that both name
// the same missing tool.
const { spawnSync } = require('node:child_process');
const { accessSync, constants, statSync } = require('node:fs');
const { delimiter, isAbsolute, join } = require('node:path');

/** CMakeLists.txt asks for the same version. */
const CMAKE_MINIMUM = [3, 18];

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    // Not there, or not ours to run: either way it is no tool.
    return false;
  }
}

/** The first of `names` found on PATH (or given as an absolute path); null if none is. */
function findTool(...names) {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  for (const name of names) {
    const candidates = isAbsolute(name) ? [name] : folders.map((folder) => join(folder, name));
    const found = candidates.find(isExecutable);
    if (found !== undefined) return found;
  }
  return null;
}

function hasCompiler() {
  // $CXX may carry arguments: only its first word is a program.
  const forced = (process.env.CXX ?? '').split(' ')[0];
  return findTool(...(forced === '' ? [] : [forced]), 'g++', 'clang++', 'c++') !== null;
}

function hasCmake() {
  const cmake = findTool('cmake');
  if (cmake === null) return false;
  const { stdout } = spawnSync(cmake, ['--version'], { encoding: 'utf8', timeout: 10_000 });
  const version = /version (\d+)\.(\d+)/.exec(stdout ?? '');
  if (version === null) return false;
  const [major, minor] = [Number(version[1]), Number(version[2])];
  return major > CMAKE_MINIMUM[0] || (major === CMAKE_MINIMUM[0] && minor >= CMAKE_MINIMUM[1]);
}

/** The tools a native build needs and this machine lacks, as people call them. */
function missingTools() {
  const missing = [];
  if (!hasCompiler()) missing.push('g++ or clang++');
  if (findTool('make', 'ninja') === null) missing.push('make');
  if (!hasCmake()) missing.push(`cmake >= ${CMAKE_MINIMUM.join('.')}`);
  return missing;
}

/** Why no native addon can be built here, in a few words; null where one can. */
function buildObstacle() {
  if (process.platform === 'win32') return 'the addon does not build on Windows';
  const missing = missingTools();
  return missing.length === 0 ? null : `not found: ${missing.join(', ')}`;
}

module.exports = { missingTools, buildObstacle };
