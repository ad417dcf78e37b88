#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write the locked lists anew from pyproject.toml and requirements.lock: every package with its version and the hashes of its files.
#
#   lock.sh [UV OPTION...]       where the CPU wheel of torch is: --find-links FOLDER, or --index https://download.pytorch.org/whl/cpu
#
# The versions are those of requirements.lock, with which the tests ran. No extra is in: a site has neither Ray nor test tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
UV=${UV:-.venv/bin/uv}

head_of() { printf '# %s\n# Written by deploy/locked/lock.sh. Install it with --require-hashes --no-deps; deploy/locked/README.md.\n' "$1"; }

lock() { # profile, title, what uv is to compile
    local title=$2 out=deploy/locked/requirements-$1.txt
    shift 2
    "$UV" pip compile "$@" --constraint requirements.lock --generate-hashes --universal --python-version 3.11 --no-header --no-annotate \
        --quiet --output-file "$out.new"
    { head_of "$title"; cat "$out.new"; } >"$out"
    rm "$out.new"
    printf '%s: %s packages\n' "$out" "$(grep -c '^[a-z].*==' "$out")"
}

scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
torch=$(sed -n 's/^torch==//p' requirements.lock)
printf 'torch==%s+cpu\n' "$torch" >"$scratch/cpu.txt"
printf 'hatchling\n' >"$scratch/build.in"
rm -f deploy/locked/*.new

lock cuda 'What fedward needs on Linux with a GPU; torch as on PyPI, which carries CUDA.' pyproject.toml
lock cpu 'What fedward needs on Linux without a GPU, and at the coordinator.' pyproject.toml --override "$scratch/cpu.txt" "$@"
lock build 'What builds the wheel of fedward itself.' "$scratch/build.in"
