#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that an installation needs, in one folder that can be carried to a machine without a network.
#
#   bundle.sh PROFILE FOLDER [PIP DOWNLOAD OPTION...]       PROFILE: cpu or cuda
#
# For the CPU wheel of torch: --find-links FOLDER, or --extra-index-url https://download.pytorch.org/whl/cpu. A file from there that is not
# the one in the list is refused. Run it with the Python version of the target (PYTHON=python3.11), on the same kind of machine.
set -euo pipefail
umask 022
[ $# -ge 2 ] || { sed -n '/^#   bundle.sh/s/^#   //p' "$0" >&2; exit 2; }
profile=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
list=$here/requirements-$profile.txt
PYTHON=${PYTHON:-python3}
[ -f "$list" ] || { printf 'bundle.sh: no list for profile "%s"\n' "$profile" >&2; exit 2; }
[ ! -e "$out" ] || { printf 'bundle.sh: "%s" exists already\n' "$out" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out/wheels"

# fedward itself, by tools from a locked list. The same sources give the same bytes: the wheel's times are the last commit's, or the epoch.
"$PYTHON" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: "$@" --requirement "$here/requirements-build.txt"
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 315532800)
export SOURCE_DATE_EPOCH
"$scratch/venv/bin/pip" wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir "$out/wheels" "$root"

# Wheels only: what is carried in runs no build script on the way out.
"$scratch/venv/bin/pip" download --quiet --require-hashes --no-deps --only-binary :all: "$@" --dest "$out/wheels" --requirement "$list"

own=$(basename "$out"/wheels/fedward-*.whl)
{
    cat "$list"
    printf 'fedward==%s --hash=sha256:%s\n' "$(printf %s "$own" | cut -d- -f2)" "$(sha256sum "$out/wheels/$own" | cut -d' ' -f1)"
} >"$out/requirements.txt"
cp "$here/install.sh" "$here/README.md" "$out/"
mkdir "$out/deploy"
cp -r "$root/deploy/nginx" "$root/deploy/pki" "$root/deploy/systemd" "$out/deploy/"
(cd "$out" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$scratch/sums"
mv "$scratch/sums" "$out/SHA256SUMS"
printf '%s: %s wheels, %s. To be compared by telephone: %s\n' "$out" "$(find "$out/wheels" -name '*.whl' | wc -l)" "$(du -sh "$out" | cut -f1)" \
    "$(sha256sum "$out/SHA256SUMS" | cut -c1-32)"
