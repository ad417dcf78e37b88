# SPDX-License-Identifier: Apache-2.0
"""The site's own list of its files, written down: a row each, CSV for a spreadsheet or JSON for a program. It never leaves.

    path, status, reason, modality, transfer_syntax, photometric, bits, frames, images, shape, sha256, undecoded, patient, series, note

status is "used" or "rejected"; sha256 is that of the stored values of whatever decodes, used or not, and undecoded says why something does
not; patient and series are numbers within this list. The file is readable by its owner alone (0600), since paths may be names.
"""

import csv
import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from client.imaging.rejection import REMEDY, Reason
from client.imaging.rows import Inventory, Row
from common.durable import OWNER_ONLY, write_atomically

COLUMNS = (
    "path", "status", "reason", "modality", "transfer_syntax", "photometric", "bits", "frames", "images", "shape", "sha256",
    "undecoded", "patient", "series", "note",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would take for more than a path


def write(inventory: Inventory, path: Path) -> None:
    """Write the rows, as JSON if the name says so. Raises: DiskFull."""
    if path.suffix == ".json":
        text = json.dumps({"examples": _examples(inventory), "files": [_cells(row) for row in inventory.rows]}, indent=1)
    else:
        stream = StringIO(newline="")
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)  # half of Europe's spreadsheets part at ";"
        table.writeheader()
        table.writerows({name: _plain(value) for name, value in _cells(row).items()} for row in inventory.rows)
        text = stream.getvalue()
    write_atomically(path, text.encode("utf-8", "surrogateescape"), fsync=False, mode=OWNER_ONLY)


def _examples(inventory: Inventory) -> list[dict[str, Any]]:
    """Each reason once, with how many files it costs, what to do, and the first of them."""
    first: dict[Reason, str] = {}
    for row in inventory.rows:
        if row.reason is not None:
            first.setdefault(row.reason, row.path)
    counts = inventory.report.rejected
    return [{"reason": reason, "count": counts[reason], "remedy": REMEDY[reason], "example": path} for reason, path in first.items()]


def _cells(row: Row) -> dict[str, Any]:
    facts: Mapping[str, Any] = row.facts
    return {
        "path": row.path,
        "status": "used" if row.reason is None else "rejected",
        "reason": row.reason,
        "modality": facts.get("modality"),
        "transfer_syntax": facts.get("syntax"),
        "photometric": facts.get("photometric"),
        "bits": facts["bits"][0] if "bits" in facts else None,
        "frames": facts.get("frames"),
        "images": row.images if row.reason is None else 0,
        "shape": "x".join(map(str, facts["shape"])) if "shape" in facts else None,
        "sha256": facts.get("sha256"),
        "undecoded": facts.get("undecoded"),
        "patient": row.patient,
        "series": row.series,
        "note": row.note or None,
    }


def _plain(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"./{text}" if text.lstrip().startswith(FORMULA) else text
