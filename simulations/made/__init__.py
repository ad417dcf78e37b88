# SPDX-License-Identifier: Apache-2.0
"""Made data for every task: folders that a hospital could have exported, of patients who do not exist.

    MadeSpec -> patients, each with a stream of their own -> pictures, masks, boxes, records -> index.csv -> the client's own intake

One module per kind, of the same shape: what is to be learnt, and `write`. They are learnable in seconds, and not by brightness alone. Good
for showing and testing the whole way of a task, from a file to a model. Not good for any claim about medicine.
"""

import shutil
import tempfile
from importlib import import_module
from pathlib import Path

from common.errors import RunFolderTaken
from simulations.made.spec import KINDS, Kind, MadeSpec

__all__ = ["KINDS", "Kind", "MadeSpec", "write"]


def write(spec: MadeSpec, folder: Path) -> None:
    """Make the set that `spec` names in `folder`, which must not exist yet.

    Guarantees: the same spec gives the same bytes; the folder appears at once and whole. Raises: RunFolderTaken, if it exists.
    """
    if folder.exists():
        raise RunFolderTaken(f"made data: {folder} exists already.", fix="Name another folder, or remove this one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # By name, when it is asked for: a plan that is only looked at needs no writer, nor what writers draw with.
        import_module(f"simulations.made.{spec.kind.replace('-', '_')}").write(spec, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
