#!/usr/bin/env bash
# Prints the paths of ChromeDriver and of the axe accessibility checker, on a line each; fetches what is
# missing: Chromium with its driver from Debian's packages, axe from the package axe-playwright-python.
#
#   CHROMEDRIVER=/path/to/chromedriver   takes that one and the browser that it finds
set -euo pipefail
cd "$(dirname "$0")/.."

driver="${CHROMEDRIVER:-$(command -v chromedriver || true)}"
if [ -z "$driver" ]; then
  echo "browser: installing chromium and chromium-driver" >&2
  sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >&2; then
    echo "browser: install Chromium with its driver (Debian: apt-get install chromium chromium-driver), then try again" >&2
    exit 1
  fi
  driver="$(command -v chromedriver)"
fi
echo "$driver"

venv="$PWD/.tools/axe"
if ! [ -f "$venv/complete" ]; then
  .ci/venv "$venv" --no-deps axe-playwright-python==0.1.8
  touch "$venv/complete"
fi
find "$venv" -name axe.min.js | head -n 1
