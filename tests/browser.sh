#!/usr/bin/env bash
# Prints the paths of ChromeDriver and of the axe accessibility checker, on a line each; fetches what is
# missing: Chromium with its driver from Debian's packages, axe from the package axe-playwright-python.
#
#   CHROMEDRIVER=/path/to/chromedriver   takes that one and the browser that it finds
set -euo pipefail
cd "$(dirname "$0")/.."

driver="${CHROMEDRIVER:-}"
if [ -z "$driver" ]; then
  if ! .ci/apt 'command -v chromedriver' chromium chromium-driver || ! driver="$(command -v chromedriver)"; then
    echo "browser: install Chromium with its driver (Debian: apt-get install chromium chromium-driver), then try again" >&2
    exit 1
  fi
fi

venv="$PWD/.tools/axe"
.ci/venv "$venv" --no-deps axe-playwright-python==0.1.8
axe="$(find "$venv" -name axe.min.js | head -n 1)"
[ -n "$axe" ] || { echo "browser: the package axe-playwright-python holds no axe.min.js" >&2; exit 1; }
printf '%s\n' "$driver" "$axe"
