# SPDX-License-Identifier: Apache-2.0
"""The page as a site gets it: for its owner alone, about everybody and naming nobody, and nothing in it fetches anything."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import fedward
from common.plan import Plan, to_toml
from tests.client.imaging.labels.ward import NODULE, NORMAL, Ward
from tests.journeys.browser import browser, needs_chromium


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    (tmp_path / "ward").mkdir()
    return Ward(folder=tmp_path / "ward")


@pytest.fixture
def report(tmp_path: Path, plan_for: Callable[..., Plan]) -> Callable[..., tuple[str, Result]]:
    """report(folder) -> the page's text, and what the command printed."""

    def run(folder: Path, *more: str, **options: Any) -> tuple[str, Result]:
        (tmp_path / "plan.toml").write_text(to_toml(plan_for(**options)))
        out = tmp_path / "report.html"
        arguments = ["site", "data-report", str(folder), "--plan", str(tmp_path / "plan.toml"), "--out", str(out), "--workers", "1", *more]
        result = CliRunner().invoke(fedward.house(), arguments)
        assert result.exit_code == 0, result.output
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".fedward")] == []
        return out.read_text(), result

    return run


def fill(ward: Ward, count: int = 8) -> None:
    """Every other patient has a nodule; two cannot be used; a name was typed where a protocol should be."""
    for number in range(count):
        image = ward.image(
            f"MRN-{number:04}",
            PatientAge=f"{30 + number:03}Y",
            ProtocolName="Doe Jane, urgent" if number == 2 else "Thorax",
            Modality="MR" if number == 5 else "CT",
        )
        ward.report([(image, NODULE if number % 2 else NORMAL)], name=f"report_{number}.dcm")
    (ward.folder / "Doe_Jane.txt").write_text("Jane Doe")
    ward.rules('[structured_report.classes]\nnodule = ["SCT:27925004"]\nnormal = ["SCT:17621005"]\n')


def test_a_site_sees_what_it_has_and_nobody_is_named(ward: Ward, report: Callable[..., tuple[str, Result]]) -> None:
    fill(ward)
    page, result = report(ward.folder)
    page = re.sub(r'src="data:[^"]*"', "", page)  # of a picture any three letters may be found in base64
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    for expected in ("E_MODALITY", "E_NOT_DICOM", "E_LABEL_SOURCE", "nodule", "Acme Scan 3", "Thorax", "18 to 39", "female"):
        assert expected in text, expected
    private = ["Doe", "Jane", "MRN-", "NORTH", "19600229", "20240229", "urgent", ".dcm", str(ward.folder), "Erring", "Diologist"]
    private += [
        str(image[keyword].value) for image in ward.images for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    ]
    for name in private:
        assert name not in page, name
        assert name == str(ward.folder) or name not in result.output, name
    assert page.count("<img ") == 7
    assert "1 other, rare or with fewer than 3 patients" in text
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:|//|/)", page)


def test_labels_that_cannot_be_used_leave_a_page_that_says_so(ward: Ward, report: Callable[..., tuple[str, Result]]) -> None:
    fill(ward, 4)
    ward.rules('[structured_report.classes]\ntumour = ["SCT:27925004"]\n')
    page, result = report(ward.folder, "--json")
    assert "&#39;tumour&#39; is none of the plan&#39;s classes" in page
    assert json.loads(result.output)["before_training"] >= 1


def test_pictures_have_a_page_without_headers(tmp_path: Path, report: Callable[..., tuple[str, Result]]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = ["file,label,patient_id"]
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{('normal', 'nodule')[number % 2]},P{number}")
    (folder / "index.csv").write_text("\n".join(lines))
    page, _ = report(folder, modality="any")
    assert "Who was examined" not in page
    assert page.count("<img ") == 6
    (folder / "index.csv").write_text("file,whose\n0.png,Doe\n")
    assert "The labels cannot be used" in report(folder, modality="any")[0]


@pytest.mark.slow
@pytest.mark.parametrize("width", [pytest.param(420, marks=needs_chromium)])
def test_a_browser_shows_it_without_a_complaint(ward: Ward, report: Callable[..., tuple[str, Result]], tmp_path: Path, width: int) -> None:
    fill(ward)
    report(ward.folder)
    with browser(tmp_path / "profile") as seen:
        seen.open((tmp_path / "report.html").as_uri())
        assert seen.complaints() == []
        own = {url for url in seen.contacted() if not url.startswith(("data:", "chrome:"))}
        assert own == {(tmp_path / "report.html").as_uri()}
        assert min(seen.contrasts().values()) >= 4.5
        assert seen.run("return [...document.images].every((image) => image.naturalWidth > 0)")
        seen.resize(width, 800)
        assert seen.run("return document.documentElement.scrollWidth <= window.innerWidth")
