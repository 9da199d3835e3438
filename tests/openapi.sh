#!/usr/bin/env bash
# Checks the management API's document and holds a running control plane to it: the document is valid OpenAPI, a
# client can be generated from it, and the control plane answers as it says, whatever it is asked (Schemathesis).
# Requests make, change and remove plans, accounts and keys, so ask one whose data nobody needs.
#
#   tests/openapi.sh URL OPERATOR_TOKEN   such as http://127.0.0.1:8081
#   tests/openapi.sh --fetch              only fetches what it runs with
set -euo pipefail
cd "$(dirname "$0")/.."

venv="$PWD/.tools/openapi"
.ci/venv "$venv" openapi-python-client==0.29.1 openapi-spec-validator==0.9.0 schemathesis==4.32.5
[ "${1:-}" != --fetch ] || exit 0
[ $# = 2 ] || { echo "openapi: expected a URL and an operator token" >&2; exit 1; }

url="${1%/}"
config="$PWD/tests/openapi.toml"
# The configuration names it.
export OPERATOR_TOKEN="$2"
# The generator formats what it made with ruff, and looks for it there.
export PATH="$venv/bin:$PATH"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
# What the tools leave behind goes with the folder; files that the configuration names are in its own.
cp "$config" "$folder/schemathesis.toml"
cd "$folder"

# Prints what a command said only if it fails.
quietly() {
  local what="$1"
  shift
  "$@" >said 2>&1 || { cat said; echo "openapi: $what" >&2; exit 1; }
}

quietly "no control plane with demo data answers at $url" python3 - "$url/api/v1" <<'END_OF_PYTHON'
import json, os, sys, urllib.request

# No proxy of the environment's stands between.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.addheaders = [("Authorization", "Bearer " + os.environ["OPERATOR_TOKEN"])]


def get(path):
    with opener.open(sys.argv[1] + path, timeout=10) as answer:
        return answer.read()


def ids(path, member="id"):
    return [item[member] for item in json.loads(get(path + "?limit=1000"))["items"]]


with open("openapi.json", "wb") as file:
    file.write(get("/openapi.json"))
accounts = ids("/accounts")
for name, of_all in [
    ("accounts", accounts),
    ("keys", [key for account in accounts for key in ids(f"/accounts/{account}/keys")]),
    ("plans", ids("/plans")),
    ("resources", [name for account in accounts for name in ids(f"/accounts/{account}/resources", "name")]),
]:
    if not of_all:
        sys.exit(f"there are no {name}")
    with open(name + ".txt", "w") as file:
        file.writelines(json.dumps(one) + "\n" for one in of_all)
END_OF_PYTHON

quietly "the document is not valid" openapi-spec-validator --validation-errors all openapi.json

quietly "no client can be generated" openapi-python-client generate --path openapi.json --meta none --output-path latchkey_client --fail-on-warning
quietly "the client that was generated does not compile" python3 -W error -m compileall -q latchkey_client
quietly "the client that was generated cannot be imported" python3 - <<'END_OF_PYTHON'
import importlib, pkgutil, sys

sys.path.insert(0, ".")
import latchkey_client

for module in pkgutil.walk_packages(latchkey_client.__path__, "latchkey_client."):
    importlib.import_module(module.name)
END_OF_PYTHON

NO_PROXY='*' quietly "the control plane does not do what its document says" \
  schemathesis --no-color --config-file schemathesis.toml run openapi.json --url "$url" --checks all
sed -n 's/^ *\([0-9]* generated\)/openapi: the document is valid, and the control plane does what it says; requests: \1/p' said
