#!/usr/bin/env bash
# Counts the instructions that requests take with Valgrind, which is installed if it is missing, and fails
# where they take more than their budget.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v valgrind >/dev/null; then
  echo "benches: installing valgrind" >&2
  sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends valgrind; } >&2; then
    echo "benches: install Valgrind (Debian: apt-get install valgrind), then try again" >&2
    exit 1
  fi
fi
echo "benches: instructions a request takes"
cargo bench --quiet --package latchkey-filter --bench instructions
