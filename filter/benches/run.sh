#!/usr/bin/env bash
# Counts the instructions that requests take with Valgrind, which is installed if it is missing, and fails
# where they take more than their budget.
set -euo pipefail
cd "$(dirname "$0")/../.."

.ci/apt 'command -v valgrind' valgrind || {
  echo "benches: install Valgrind (Debian: apt-get install valgrind), then try again" >&2
  exit 1
}
echo "benches: instructions a request takes"
cargo bench --quiet --package latchkey-filter --bench instructions
