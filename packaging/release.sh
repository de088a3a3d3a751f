#!/usr/bin/env bash
# Makes what a release has, for one target: a static binary in an archive with its licences, manual pages and completions,
# a wheel, the folder for the Docker image, and SHA256SUMS.
#
#     packaging/release.sh OUT [TARGET]
#
# TARGET is x86_64-unknown-linux-musl by default. It needs Rust with the standard library of TARGET (rustup target add), a C
# compiler for it (musl-tools on Debian) and, for the wheel, Python 3 with pip. With NO_WHEEL=1 it makes no wheel.
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: packaging/release.sh OUT [TARGET]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
target=${2:-x86_64-unknown-linux-musl}
cd "$root"
if [ -n "$(git status --porcelain)" ]; then
  echo "error: the checkout has changes that no commit has: commit them, or release from a clone" >&2
  exit 1
fi
export CURMERGE_COMMIT=$(git rev-parse HEAD)
# The same bytes from every folder.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$root=curmerge --remap-path-prefix=$HOME/.cargo=cargo"
if [ "$target" = x86_64-unknown-linux-musl ]; then
  export CC_x86_64_unknown_linux_musl=${CC_x86_64_unknown_linux_musl:-musl-gcc}
fi

cargo build --release --locked --features package --target "$target"
suffix=
case "$target" in *windows*) suffix=.exe ;; esac
binary=${CARGO_TARGET_DIR:-target}/$target/release/curmerge$suffix
wheel=$(sed -n 's/^version = "\(.*\)"/\1/p' packaging/python/Cargo.toml | head -1)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
if [ "$wheel" != "$version" ]; then
  echo "error: packaging/python/Cargo.toml has the version $wheel, and Cargo.toml $version: make them equal" >&2
  exit 1
fi
name=curmerge-$version-$target

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/$name/completions" "$stage/$name/man"
cp "$binary" LICENSE-MIT LICENSE-APACHE THIRD-PARTY-LICENSES.md README.md CHANGELOG.md "$stage/$name/"
# A program for another processor cannot say its own options here: the workflow's own runners can.
if "$binary" --version >/dev/null 2>&1; then
  for shell in bash zsh fish powershell elvish; do
    "$binary" completions "$shell" > "$stage/$name/completions/curmerge.$shell"
  done
  "$binary" man "$stage/$name/man"
else
  rmdir "$stage/$name/completions" "$stage/$name/man"
  echo "note: $target does not run here, so there are no completions and manual pages" >&2
fi
case "$target" in
  *windows*) (cd "$stage" && python3 -m zipfile -c "$out/$name.zip" "$name") ;;
  *) tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -c "$name" \
       | gzip -n > "$out/$name.tar.gz" ;;
esac

mkdir -p "$out/docker"
cp packaging/Dockerfile "$binary" LICENSE-MIT LICENSE-APACHE THIRD-PARTY-LICENSES.md "$out/docker/"

if [ -z "${NO_WHEEL:-}" ]; then
  python3 -m venv "$stage/venv"
  programs=$stage/venv/bin
  # Windows calls it so.
  [ -d "$programs" ] || programs=$stage/venv/Scripts
  "$programs/python" -m pip -q install 'maturin>=1.9,<2'
  scripts=packaging/python/data/scripts
  mkdir -p "$scripts"
  cp "$binary" "$scripts/"
  # The module links the system's C library, and the program in the same wheel is static.
  case "$target" in *-linux-musl) module=${target%musl}gnu ;; *) module=$target ;; esac
  (cd packaging/python && unset CC_x86_64_unknown_linux_musl \
    && "$programs/maturin" build --release --locked --target "$module" --out "$out")
  rm -rf packaging/python/data
fi
(cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | sort | xargs sha256sum > SHA256SUMS)
echo "wrote $out:"
ls -l "$out"
