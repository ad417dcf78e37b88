#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The list of components of an installation, in CycloneDX 1.6, for whoever has to look them up in a list of vulnerabilities.
#
#   sbom.sh PYTHON OUT.json      PYTHON: the interpreter of the installation, /opt/fedward/bin/python
set -euo pipefail
[ $# = 2 ] || { sed -n '/^#   sbom.sh/s/^#   //p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
"${CYCLONEDX:-$root/.venv/bin/cyclonedx-py}" environment --output-reproducible --validate --pyproject "$root/pyproject.toml" --output-file "$2" "$1"
