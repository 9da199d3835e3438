#!/usr/bin/env bash
# Links the filter's module: with the exports that follow and no others. The SDK exports a function for
# every callback there is, and Envoy calls each that is there, for each request, whatever it does.
#
# The compiler calls this in place of the linker, which is $WASM_LINKER. It fails if an export is missing:
# without --allow-undefined, which the compiler asks for and the host's functions do not need.
set -euo pipefail

exports=(
  _initialize malloc proxy_abi_version_0_2_1
  proxy_on_vm_start proxy_on_configure proxy_on_tick proxy_on_queue_ready proxy_on_http_call_response
  proxy_on_context_create proxy_on_delete
  proxy_on_request_headers proxy_on_request_body proxy_on_request_trailers proxy_on_response_headers
)

arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --export) shift ;;
    --export=* | --allow-undefined) ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
exec "$WASM_LINKER" "${arguments[@]}" "${exports[@]/#/--export=}"
