# SPDX-License-Identifier: Apache-2.0
"""A ward of made images, and what is gathered from the documents that speak of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from client.imaging.identity import PatientSecret
from client.imaging.labels.account import LabelAccount
from client.imaging.labels.gather import gather
from client.imaging.labels.survey import Surveyor
from client.imaging.listing import walk
from client.imaging.rejection import Reason, Rejected
from client.imaging.worker import TELLERS, Brief, Kind, Limits
from common.plan import InputSpec, Plan
from tests.client.imaging.labels.ward import Ward


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    (tmp_path / "ward").mkdir()
    return Ward(folder=tmp_path / "ward")


@pytest.fixture
def surveyor(secret: PatientSecret) -> Callable[[Ward, InputSpec], Surveyor]:
    """surveyor(ward, input) -> one whose files tell here what they would tell in a child process."""

    def make(ward: Ward, spec: InputSpec) -> Surveyor:
        def tell(kind: Kind, paths: Sequence[str]) -> list[tuple[Any, Reason | None]]:
            return [_told(ward.folder / path, Brief(kind=kind, input=spec, limits=Limits(), wanted=None)) for path in paths]

        return Surveyor(root=ward.folder, secret=secret, tell=tell)

    return make


@pytest.fixture
def opened(
    surveyor: Callable[[Ward, InputSpec], Surveyor], plan_for: Callable[..., Plan]
) -> Callable[..., tuple[dict[int, str], LabelAccount]]:
    """opened(ward) -> class name by number of the image, and the account."""

    def run(ward: Ward, **options: Any) -> tuple[dict[int, str], LabelAccount]:
        plan, rules_file = plan_for(**options), ward.folder / "labels.toml"
        found = gather(surveyor(ward, plan.input), walk(ward.folder, skip=rules_file), rules_file, plan.classification).labels
        assert found.account is not None
        by_number = {number: found.by_item.get(f"image_{number:02}.dcm") for number in range(len(ward.images))}
        return {number: plan.classification.classes[label] for number, label in by_number.items() if label is not None}, found.account

    return run


def _told(path: Path, brief: Brief) -> tuple[Any, Reason | None]:
    try:
        return json.loads(json.dumps(TELLERS[brief.kind](path.read_bytes(), brief))), None
    except Rejected as rejected:
        return None, rejected.reason
