#!/usr/bin/env bash
# Runs a cargo command for wasm32-unknown-unknown with whatever toolchain can: the target where it
# is installed, else rustup's, else Debian's compiler with a standard library built from its source.
#
#   filter/build.sh build    builds the module and prints where it is and its size
#   filter/build.sh nothing  builds the module that does nothing, which `make bench` compares with
#   filter/build.sh clippy   lints the code that only the module has
#
# WASM_TOOLCHAIN=rustup or =debian allows only that one.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.ci/lock
. .ci/lock

target=wasm32-unknown-unknown
tools="$PWD/.tools"
sysroot="$tools/wasm-sysroot"
wanted="${WASM_TOOLCHAIN:-any}"

has_target() {
  compgen -G "$(rustc --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null
}

# With rustup a target's files appear one after another, so that to look for them, too, takes the lock.
# Functions whose body is in round brackets are shells of their own: the lock ends with them.
find_target() (
  if ! command -v rustup >/dev/null; then
    has_target
    exit
  fi
  lock "$tools/.wasm.lock" || exit 1
  if has_target; then exit; fi
  echo "filter: adding $target with rustup" >&2
  timeout 300 rustup target add "$target" >&2
)

# Debian's rustc-web comes with the source of its standard library, which is built once into a
# sysroot of the project's own; -Cembed-bitcode is what link-time optimization needs of it.
find_debian_sysroot() (
  lock "$tools/.wasm.lock" || exit 1
  if [ -f "$sysroot/version" ] && [ "$(/usr/bin/rustc --version)" = "$(cat "$sysroot/version")" ]; then exit; fi
  command -v apt-get >/dev/null || exit 1
  # shellcheck disable=SC2016  # the shell that checks expands it
  .ci/apt '[ -d /usr/lib/rustlib/src/rust/library ] || [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src" ]' \
    rustc-web rust-web-src cargo-web rust-web-clippy || exit 1
  echo "filter: building the standard library for $target, once" >&2
  new="$tools/.wasm-sysroot.new"
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
  rm -rf "$new"
  mkdir -p "$work/src" "$new/lib/rustlib/$target/lib"
  printf '[package]\nname = "std-for-wasm"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/Cargo.toml"
  printf '#![no_std]\n' >"$work/src/lib.rs"
  (cd "$work" && PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
    CARGO_TARGET_DIR="$work/target" /usr/bin/cargo build --quiet --release --target "$target" \
    -Zbuild-std=std,panic_abort >&2 9>&-) || exit 1
  cp "$work/target/$target/release/deps/"*.rlib "$new/lib/rustlib/$target/lib/" || exit 1
  /usr/bin/rustc --version >"$new/version" || exit 1
  # The version first: without it, what is left of a sysroot is not used.
  rm -rf "$sysroot/version" "$sysroot" "$tools/wasm-target"
  mv "$new" "$sysroot"
)

# The module's exports are chosen by link.sh, which calls the linker found here: the one that comes with
# rustup's compiler, which links for other compilers as well, else the one of a compiler's own LLVM.
find_linker() {
  WASM_LINKER="$(find "$(rustc --print sysroot)/lib/rustlib" -path '*/bin/rust-lld' 2>/dev/null | head -n 1)"
  if [ -z "$WASM_LINKER" ]; then
    WASM_LINKER="wasm-ld-$("$1" --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
    if ! command -v "$WASM_LINKER" >/dev/null \
      && ! .ci/apt "command -v $WASM_LINKER" "lld-${WASM_LINKER##*-}"; then
      echo "filter: no linker for wasm: install $WASM_LINKER (Debian: the package lld-${WASM_LINKER##*-})" >&2
      return 1
    fi
  fi
  export WASM_LINKER CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$PWD/filter/link.sh"
}

use_debian() {
  find_debian_sysroot || return 1
  find_linker /usr/bin/rustc || return 1
  export RUSTC=/usr/bin/rustc CARGO_TARGET_DIR="$tools/wasm-target"
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--sysroot=$sysroot"
}

if [ "$wanted" != debian ] && find_target && find_linker rustc; then
  toolchain=rustup
elif [ "$wanted" != rustup ] && use_debian; then
  toolchain=debian
else
  cat >&2 <<END
filter: no Rust compiler here can build $target. Install one of these, then try again:
  rustup target add $target
  apt-get install rustc-web rust-web-src cargo-web rust-web-clippy   (Debian 12)
END
  exit 1
fi

# The shape of a module for Envoy: a library that the host calls, whatever the crate also is.
case "${1:-build}" in
  build)
    cargo build --quiet --package latchkey-filter --lib --target "$target" --profile wasm
    built="${CARGO_TARGET_DIR:-target}/$target/wasm/latchkey_filter.wasm"
    mkdir -p target
    if ! cmp -s "$built" target/latchkey.wasm; then cp "$built" target/latchkey.wasm; fi
    echo "filter: target/latchkey.wasm, $(wc -c <target/latchkey.wasm) bytes ($toolchain)"
    ;;
  nothing)
    cargo build --quiet --package latchkey-filter --example nothing --target "$target" --profile wasm
    mkdir -p target
    cp "${CARGO_TARGET_DIR:-target}/$target/wasm/examples/nothing.wasm" target/nothing.wasm
    echo "filter: target/nothing.wasm, $(wc -c <target/nothing.wasm) bytes ($toolchain)"
    ;;
  clippy)
    [ "$toolchain" = debian ] && export PATH="/usr/bin:$PATH"
    cargo clippy --quiet --package latchkey-filter --lib --target "$target" --profile wasm -- --deny warnings
    ;;
  *)
    echo "usage: $0 build|nothing|clippy" >&2
    exit 2
    ;;
esac
