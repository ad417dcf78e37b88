# SPDX-License-Identifier: Apache-2.0
"""A folder that has not changed is not surveyed again, and what is kept of it names nobody."""

import dataclasses
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.imaging.identity import PatientSecret
from client.imaging.labels.gather import gather
from client.imaging.labels.memory import Memory
from client.imaging.labels.survey import Surveyor
from client.imaging.listing import walk
from common.plan import Plan
from tests.client.imaging.labels.ward import NODULE, NORMAL, SHAPE, Ward

RULES = '[structured_report.classes]\nnodule = ["SCT:27925004"]\nnormal = ["SCT:17621005"]\n'


def test_a_survey_is_remembered_until_something_changes(
    ward: Ward, surveyor: Callable[..., Surveyor], plan_for: Callable[..., Plan], tmp_path: Path, secret: PatientSecret
) -> None:
    first, second = ward.image(), ward.image("MRN-0002")
    ward.report([(first, NODULE)])
    ward.report([(second, NORMAL)], name="second.dcm")
    mask = np.ones(SHAPE, dtype=np.uint8)
    ward.segmentation([mask], of=[first])
    (ward.folder / "Doe.txt").write_text("Jane")
    ward.rules(RULES)
    plan, rules_file = plan_for(), ward.folder / "labels.toml"
    read: list[str] = []

    def labels(with_secret: PatientSecret = secret) -> dict[str, int]:
        fresh = surveyor(ward, plan.input)

        def tell(kind: Any, paths: Any) -> Any:
            read.extend(paths)
            return fresh.tell(kind, paths)

        memory = Memory(folder=tmp_path / "cache", fingerprint=with_secret.fingerprint)
        own = dataclasses.replace(fresh, secret=with_secret, tell=tell, memory=memory)
        found = gather(own, walk(ward.folder, skip=rules_file), rules_file, plan.classification).labels
        return {**found.by_item, **dict.fromkeys(found.known, -1)}

    before = labels()
    assert len(read) == 6
    assert labels() == before
    assert len(read) == 6
    ward.rules(RULES.replace('normal = ["SCT:17621005"]\n', ""))
    assert labels() != before  # a rule is applied anew to what is remembered
    assert len(read) == 6
    (kept,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    text = kept.read_text()
    for private in ("MRN", "NORTH", "Doe", "Thorax", "Acme", ".dcm", first.SOPInstanceUID, first.StudyInstanceUID):
        assert private not in text
    kept.write_text(text[: len(text) // 2])
    ward.rules(RULES)
    assert labels() == before
    assert len(read) == 12
    labels(PatientSecret(value=b"x" * 32))
    assert len(read) == 18
    ward.image("MRN-0003")
    labels()
    assert len(read) == 25
