# Sourced by the test scripts and .ci/run.

# need COMMAND PACKAGE: installs the Debian package where it can; ends the script, with the reason, where it cannot.
need() {
  command -v "$1" >/dev/null && return
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    local install=(apt-get install -y --no-install-recommends "$2")
    { "${install[@]}" || { apt-get update && "${install[@]}"; }; } </dev/null >/dev/null 2>&1 || true
  fi
  command -v "$1" >/dev/null && return
  echo "$(basename "$0"): $1 not found (Debian package $2), skipped"
  exit 0
}

# What slow runs ask of jest: patience, and to leave out what starts many processes.
slow_run=(--testTimeout=300000 --testPathIgnorePatterns=test/lifecycle/process)

# addon_folder BUILD: prints a folder that lib/backend takes the addon of BUILD from, through GQA_PREBUILD.
addon_folder() {
  mkdir -p "$1/package"
  ln -sfn .. "$1/package/build"
  echo "$PWD/$1/package"
}

# expect_isa EXPECTED COMMAND...: the package, left to itself under COMMAND (a Node), chooses this instruction set.
expect_isa() {
  local expected=$1 chosen
  shift
  chosen=$("$@" -p "require('./dist/lib').backend().isa") || chosen="an exit status of $?"
  if [ "$chosen" = "$expected" ]; then
    echo "chooses $expected"
    echo '1 passed, 0 failed'
  else
    echo "expected to choose $expected, got $chosen"
    echo '0 passed, 1 failed'
    failed=1
  fi
}

# path_without_compilers FOLDER: fills FOLDER with links to every program on PATH but compilers and build tools.
path_without_compilers() {
  local folder program
  mkdir "$1"
  while read -r -d : folder; do
    for program in "$folder"/*; do
      case ${program##*/} in
        *gcc* | *g++* | *c++* | *clang* | cc | make | gmake | ninja* | cmake*) ;;
        *) [ -e "$1/${program##*/}" ] || ln -s "$program" "$1/" 2>/dev/null || true ;;
      esac
    done
  done <<<"$PATH:"
}
