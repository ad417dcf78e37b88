#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install fedward from the folder that bundle.sh made, without a network. It lies beside requirements.txt and wheels/.
#
#   install.sh [PREFIX]          default /opt/fedward. PYTHON=python3.11 chooses the interpreter
#
# Every file is held to SHA256SUMS, every wheel to the list's hash; a file too many, too few or altered ends the installation.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
prefix=${1:-/opt/fedward}
PYTHON=${PYTHON:-python3}
fail() { printf 'install.sh: %s\n' "$1" >&2; exit 1; }

while [ "$prefix" != "${prefix%/}" ]; do prefix=${prefix%/}; done # as a shell completes the name of a folder
# Scripts begin with the interpreter's path, and not every system takes any path there.
case $prefix in ''|*[!A-Za-z0-9._/+-]*) fail "'$prefix' is no place for an installation: letters, digits and . _ + - alone" ;; esac
(cd "$here" && sha256sum --quiet --strict --check SHA256SUMS) || fail 'a file is not what was bundled; fetch the folder again'
(cd "$here" && cmp -s <(find . ! -type d ! -path ./SHA256SUMS | LC_ALL=C sort) <(cut -c67- SHA256SUMS | LC_ALL=C sort)) ||
    fail 'there is a file that was not bundled; fetch the folder again'
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || fail "fedward needs Python 3.11 or 3.12, '$PYTHON' is not"

# A new installation is made beside the old one and takes its place whole; the old one stays as PREFIX.before, to go back to.
next=$prefix.next
rm -rf "$next"
"$PYTHON" -m venv "$next"
"$next/bin/python" -m pip install --quiet --no-index --find-links "$here/wheels" --require-hashes --no-deps --only-binary :all: \
    --no-compile --requirement "$here/requirements.txt"
"$next/bin/python" -m pip check --quiet || fail 'what was installed does not fit together'
mkdir -p "$next/share/fedward" "$next/libexec"
cp "$here/requirements.txt" "$next/share/fedward/locked.txt"
[ ! -e "$here/deploy/pki/tls.sh" ] || install -m 755 "$here/deploy/pki/tls.sh" "$next/libexec/tls.sh"
# Scripts name the folder that they were installed in; this one is about to be called something else.
grep -rlI "$next" "$next/bin" "$next/pyvenv.cfg" | xargs -r sed -i "s|$next|$prefix|g"
rm -rf "$prefix.before"
[ ! -e "$prefix" ] || mv "$prefix" "$prefix.before"
mv "$next" "$prefix"
"$prefix/bin/python" -m compileall -qq "$prefix/lib" >/dev/null 2>&1 || true # faster starts for users who cannot write there
"$prefix/bin/fedward" --help >/dev/null || fail "'$prefix/bin/fedward' does not start"
printf 'fedward %s in %s\n' "$("$prefix/bin/python" -c 'from importlib.metadata import version; print(version("fedward"))')" "$prefix"
