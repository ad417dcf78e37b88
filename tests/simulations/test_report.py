# SPDX-License-Identifier: Apache-2.0
"""The report as a page: it says what the folder says, all of it and nothing else, whatever state the folder is in."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from common.errors import DataNotFound, DataUnreadable
from common.plan import digest_of, parse
from common.tasks import evaluate
from simulations import report

SITES = ("north", "south", "west")
PATIENT_KEY = "9f86d081884c7d659a2feaa0c55ad015"
PLAN = """
[plan]
name = "two-classes"
purpose = "A small federation for a test."

[input]
modality = "CT"
height = 32
width = 32

[task]
kind = "classification"
classes = ["normal", "nodule"]
threshold = 0.4

[model]
family = "cnn"

[training]
rounds = 3
local_steps = 2
batch = 8
learning_rate = 0.1
seed = 5

[privacy]
unit = "record"
epsilon = 3.0
delta = 1e-6
clip_norm = 1.0

[aggregation]
minimum_cohort = 2
"""

Parts = dict[str, Any]
Edit = Callable[[Parts], None]


def scores(noise: float, *, with_patients: bool = True) -> dict[str, Any]:
    """Real scores of made predictions: 40 patients of 3 images, the more noise the worse."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(40, dtype=np.int32), 3)
    labels = (np.arange(40) % 5 < 2).astype(np.int64)[patients]
    positive = 1 / (1 + np.exp(-(2 * labels - 1 + noise * rng.normal(size=120))))
    probabilities = np.stack([1 - positive, positive], axis=1).astype(np.float32)
    found = evaluate(parse(PLAN).task, probabilities, labels, patients if with_patients else None, resamples=50)
    return json.loads(json.dumps(found.as_dict()))  # type: ignore[no-any-return]


def parts() -> Parts:
    """A whole run folder as values: one absence, one round paid for twice, a patient's key where no report may find it."""
    sites = [
        {"site": site, "images": 90 + i, "patients": 30 + i, "classes": {"normal": 60 - i, "nodule": 30 + 2 * i}}
        for i, site in enumerate(SITES)
    ]
    rng = np.random.default_rng(0)
    positive = rng.random(40).round(4)
    return {
        "run.json": {
            "fedward": "0.1.0",
            "plan": {"name": "two-classes", "purpose": "A small federation for a test.", "digest": digest_of(parse(PLAN)), "toml": PLAN},
            "session": "00112233445566778899aabbccddeeff",
            "started": "2026-01-02T03:04:05+00:00",
            "finished": "2026-01-02T03:14:05+00:00",
            "seed": 5,
            "engine": "local",
            "workers": 2,
            "versions": {"python": "3.11.9", "torch": "2.13.0"},
            "sites": sites,
            "holdout": {"images": 120, "patients": 40, "classes": {"normal": 75, "nodule": 45}},
            "unit_source": "patient_id",
            "privacy": {"unit": "record", "epsilon": 3.0, "delta": 1e-6},
            "data": "made",
            "command": ["fedward", "simulate", "two classes.toml", "--seed", "5"],
            "intake": {"seen": 400, "used": 393, "rejected": {"E_DATA_UNREADABLE": 7}},
            "patient_keys": [PATIENT_KEY],
        },
        "metrics.jsonl": [
            {
                "round": number,
                "seconds": 1.5 * number,
                "sites": ["north", "south"] if number == 2 else list(SITES),
                "missing": [{"site": "west", "why": "E_SILENT"}] if number == 2 else [],
                "auc": 0.6 + 0.08 * number,
                "balanced_accuracy": 0.55 + 0.07 * number,
                "epsilon": 0.9 * number,
                "update_norm": 1.25,
            }
            for number in (1, 2, 3)
        ],
        "comparison.json": {
            "federated": scores(2.0),
            "pooled": scores(1.8),
            "not_private": scores(1.5),
            "local": {site: scores(4.0 + i) for i, site in enumerate(SITES)},
            "seconds": {"pooled": 12.5},
        },
        "predictions.json": {
            "federated": np.c_[1 - positive, positive].round(4).tolist(),
            "labels": [int(p > rng.random()) for p in positive],
            "patients": [PATIENT_KEY] * 40,
        },
        "membership.json": {
            "rates": [0.001, 0.01, 0.1, 1.0],
            "models": {
                name: {
                    "members": 300 + i, "strangers": 250 + i, "auc": 0.5 + 0.05 * i,
                    "auc_interval": {"low": 0.46 + 0.05 * i, "high": 0.54 + 0.05 * i},
                    "found": [
                        {"rate": 0.01, "share": 0.011 + 0.01 * i, "interval": {"low": 0.004, "high": 0.03}},
                        {"rate": 0.001, "share": None, "interval": None},
                    ],
                    "curve": [0.0, 0.011 + 0.01 * i, 0.12, 1.0],
                    "patient": PATIENT_KEY,
                }
                for i, name in enumerate(("federated", "not_private", "alone"))
            },
            "allowed": [0.02, 0.09, 0.5, 1.0],
        },
        "inversion.json": {
            "noise_multiplier": 1.25,
            "pictures": [
                {"name": "image", "psnr": None, "pixels": [[0, 128], [255, 255]]},
                {"name": "plain", "psnr": 41.5, "pixels": [[0, 120], [250, 250]]},
                {"name": "masked", "psnr": 7.25, "pixels": [[90, 3], [17, 200]]},
            ],
        },
        **{
            f"ledgers/{site}.jsonl": [
                {"seq": 0, "fact": {"kind": "OPEN", "site": PATIENT_KEY}},
                *(charged(number, 0.8 * number + 0.01 * i) for number in ((1, 2, 3, 3) if site == "south" else (1, 2, 3))),
            ]
            for i, site in enumerate(SITES)
        },
    }  # fmt: skip


def charged(number: int, epsilon: float) -> dict[str, Any]:
    """A line of a ledger."""
    return {"fact": {"kind": "RESERVE", "round": number, "after": {"outside": epsilon, "own_share": epsilon}, "patient": PATIENT_KEY}}


def lay_out(folder: Path, content: Parts) -> Path:
    """Write the values as a run folder; a string is written as it is."""
    for name, value in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, str):
            path.write_text(value, encoding="utf-8")
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(line) + "\n" for line in value), encoding="utf-8")
        else:
            path.write_text(json.dumps(value), encoding="utf-8")
    return folder


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[..., str]:
    """The page of the whole folder after an edit."""
    numbers = iter(range(1000))

    def render(edit: Edit | None = None) -> str:
        content = parts()
        if edit is not None:
            edit(content)
        return report.render(lay_out(tmp_path / str(next(numbers)), content))

    return render


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole folder, made once."""
    return report.render(lay_out(tmp_path_factory.mktemp("whole"), parts()))


def tree(page: str) -> ElementTree.Element:
    """The page as XML: stricter than HTML, so nothing is left open and nothing unescaped."""
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def text_of(element: ElementTree.Element) -> str:
    return re.sub(r"\s+", " ", " ".join(element.itertext()))


def test_page_is_well_formed_and_no_id_occurs_twice(whole_page: str) -> None:
    root = tree(whole_page)
    ids = Counter(element.get("id") for element in root.iter() if element.get("id"))
    assert ids
    assert set(ids.values()) == {1}


def test_every_reference_inside_a_drawing_finds_its_target(whole_page: str) -> None:
    page = whole_page
    ids = {element.get("id") for element in tree(page).iter()}
    references = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert references
    assert references <= ids


def test_page_asks_nobody_for_anything(whole_page: str) -> None:
    page = whole_page
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe|<img|\bsrc=", page)
    assert "default-src 'none'" in page
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_figures_are_described_and_tables_have_captions_and_headers(whole_page: str) -> None:
    root = tree(whole_page)
    drawings = list(root.iter("svg"))
    assert len(drawings) == 8
    for drawing in drawings:
        assert drawing.get("role") == "img"
        assert all(len(text_of(drawing.find(tag))) > 5 for tag in ("title", "desc"))  # type: ignore[arg-type]
    tables = list(root.iter("table"))
    assert len(tables) >= 6
    for table in tables:
        assert table.find("caption") is not None
        assert all(cell.get("scope") in {"row", "col"} for cell in table.iter("th"))


def test_every_site_is_named_with_its_counts(whole_page: str) -> None:
    rows = {text_of(row.find("th")): text_of(row) for row in tree(whole_page).iter("tr") if row.find("th") is not None}  # type: ignore[arg-type]
    page = text_of(tree(whole_page))
    for i, site in enumerate(SITES):
        assert site in rows
        assert f"{site} {30 + i} {90 + i} {60 - i} {30 + 2 * i}" in page


def test_same_folder_gives_same_bytes(tmp_path: Path) -> None:
    first = report.write(lay_out(tmp_path / "a", parts())).read_bytes()
    second = report.write(lay_out(tmp_path / "b", parts())).read_bytes()
    assert first == second


def test_writing_replaces_the_old_report_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, parts())
    before = set(folder.iterdir())
    (folder / "report.html").write_text("old")
    path = report.write(folder)
    assert path == folder / "report.html"
    assert "two-classes" in path.read_text(encoding="utf-8")
    assert set(folder.iterdir()) == before | {path}


def test_patient_keys_in_the_folder_stay_out_of_the_page(page_of: Callable[..., str]) -> None:
    def everywhere(content: Parts) -> None:
        content["run.json"]["sites"][0]["patient_keys"] = [PATIENT_KEY]
        content["metrics.jsonl"][0]["patient"] = PATIENT_KEY
        content["comparison.json"]["patients"] = [PATIENT_KEY]

    assert PATIENT_KEY not in page_of(everywhere)


HOSTILE = "\"><script>alert('x')</script><svg onload=a> $x_{1}$ {{ 7*7 }} \u202egnp\x00\ud800 & </title>"


@pytest.mark.parametrize("where", ["purpose", "name", "toml", "site", "why", "class", "version", "command", "ledger", "picture"])
def test_hostile_text_is_shown_and_never_obeyed(page_of: Callable[..., str], where: str) -> None:
    def poison(content: Parts) -> None:
        run = content["run.json"]
        match where:
            case "purpose" | "name":
                run["plan"][where] = HOSTILE
            case "toml":
                run["plan"]["toml"] = f"# {HOSTILE}"
            case "site":
                run["sites"][0]["site"] = HOSTILE
                content["metrics.jsonl"][0]["sites"][0] = HOSTILE
                content["comparison.json"]["local"][HOSTILE] = content["comparison.json"]["local"].pop("north")
            case "why":
                content["metrics.jsonl"][1]["missing"][0]["why"] = HOSTILE
            case "class":
                run["plan"]["toml"] = ""
                run["sites"][0]["classes"] = {HOSTILE: 3, "normal": 1}
                content["comparison.json"]["federated"]["images"]["classes"][1]["name"] = HOSTILE
            case "version":
                run["versions"][HOSTILE] = HOSTILE
            case "command":
                run["command"].append(HOSTILE)
            case "picture":
                content["inversion.json"]["pictures"][0]["name"] = HOSTILE
            case "ledger":
                content[f"ledgers/a{HOSTILE[3:9]}.jsonl"] = content["ledgers/north.jsonl"]

    page = page_of(poison)
    root = tree(page)
    assert not list(root.iter("script"))
    assert not [element for element in root.iter() if any(key.startswith("on") for key in element.keys())]  # noqa: SIM118 - of ElementTree
    assert "\u202e" not in page
    assert "\x00" not in page
    if where != "ledger":
        assert "{{ 7*7 }}" in text_of(root)


@pytest.mark.parametrize("part", ["metrics.jsonl", "comparison.json", "predictions.json", "membership.json", "inversion.json"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "other shape"])
def test_a_part_that_cannot_be_used_is_named_instead_of_failing(page_of: Callable[..., str], part: str, damage: str) -> None:
    def hurt(content: Parts) -> None:
        match damage:
            case "missing":
                del content[part]
            case "garbage":
                content[part] = '{"federated": [[0.'
            case "other shape":
                content[part] = [{"round": "first"}] if part == "metrics.jsonl" else {"federated": 3, "labels": "none"}

    gaps = next(element for element in tree(page_of(hurt)).iter() if element.get("id") == "gaps")
    assert part in text_of(gaps)
    assert len(gaps) == 2


def test_a_folder_with_run_json_alone_gives_a_page_that_claims_nothing(tmp_path: Path) -> None:
    content = {"run.json": {"plan": {"name": "bare"}}}
    page = text_of(tree(report.render(lay_out(tmp_path, content))))
    for said in ("Not finished", "Not private", "Not evaluated", "No round is on record", "No curves", "No membership attack"):
        assert said in page
    assert "None: every site" not in page


def test_a_line_cut_short_by_a_kill_costs_that_round_alone(page_of: Callable[..., str]) -> None:
    def cut(content: Parts) -> None:
        content["metrics.jsonl"] = "".join(json.dumps(line) + "\n" for line in content["metrics.jsonl"])[:-40]
        del content["run.json"]["finished"]

    page = text_of(tree(page_of(cut)))
    assert "Not finished: 2 of 3 rounds" in page
    assert "read up to line 3" in page


def test_predictions_that_do_not_belong_together_are_not_drawn(page_of: Callable[..., str]) -> None:
    page = page_of(lambda content: content["predictions.json"]["labels"].pop())
    assert "do not fit together" in page
    assert 'id="roc-title"' not in page


def test_without_run_json_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"holds no run\.json"):
        report.render(tmp_path)


def test_an_unreadable_run_json_is_refused_without_quoting_it(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, {"run.json": {"plan": {"name": ["secret value"]}}})
    with pytest.raises(DataUnreadable, match=r"plan\.name") as refused:
        report.render(folder)
    assert "secret value" not in str(refused.value)


def test_record_level_privacy_says_what_it_means_for_a_patient(whole_page: str) -> None:
    page = tree(whole_page)
    alarm = next(element for element in page.iter() if element.get("id") == "record-level")
    assert alarm.get("class") == "alarm"
    assert "A patient with m images has about m times the ε" in text_of(alarm)
    assert "per image, not per patient" in text_of(page)
    assert "3 9.00 4.2" in text_of(page)  # three images: 3 ε, and (1 + e³ + e⁶) δ = 4.2e-4


def test_a_promise_per_patient_is_not_put_down(page_of: Callable[..., str]) -> None:
    page = page_of(lambda content: content["run.json"]["privacy"].update(unit="patient"))
    assert "record-level" not in page
    assert "for each patient" in text_of(tree(page))


@pytest.mark.parametrize("privacy", [None, {"unit": "none"}])
def test_a_run_without_privacy_says_so_in_red(page_of: Callable[..., str], privacy: dict[str, Any] | None) -> None:
    root = tree(page_of(lambda content: content["run.json"].update(privacy=privacy)))
    alarms = [text_of(element) for element in root.iter() if element.get("class") == "alarm"]
    assert any("Not private" in alarm for alarm in alarms)
    assert "Without any privacy guarantee" in text_of(root)
    assert "Under a privacy budget" not in text_of(root)


@pytest.mark.parametrize(("aggregation", "alarms"), [("plain", 1), ("ideal", 0), ("fsa1", 0)])
def test_only_plain_aggregation_alarms(aggregation: str, alarms: int, page_of: Callable[..., str]) -> None:
    page = page_of(lambda content: content["run.json"].update(aggregation=aggregation, secure_aggregation=aggregation == "fsa1"))
    assert page.count('id="plain-aggregation"') == alarms
    assert ("Masks were left out" in page) == (aggregation == "ideal")


def test_known_noise_voids_the_promise_in_red(page_of: Callable[..., str]) -> None:
    root = tree(page_of(lambda content: content["run.json"].update(unsafe_noise_seed=0)))
    assert any(element.get("id") == "unsafe-seed" and element.get("class") == "alarm" for element in root.iter())


def test_what_a_sites_own_share_leaves_is_beside_what_it_spent(page_of: Callable[..., str], whole_page: str) -> None:
    def share(content: Parts) -> None:
        shared = {"noise": "distributed", "noise_quorum": 3, "colluders": 1, "own_share_epsilon": 17.5}
        content["run.json"]["privacy"].update(shared)
        content["ledgers/west.jsonl"][-1]["fact"]["after"]["own_share"] = 12.34

    assert "of its own share" not in whole_page
    assert "west 2 of 3 2.42 12.34" in text_of(tree(page_of(share)))


def test_a_budget_that_was_passed_is_not_hidden(page_of: Callable[..., str], whole_page: str) -> None:
    page = page_of(lambda content: content["ledgers/west.jsonl"].append(charged(4, 3.5)))
    assert "The budget was exceeded" in page
    assert "The budget was exceeded" not in whole_page


def test_the_absent_are_named_with_round_and_reason(whole_page: str) -> None:
    page = text_of(tree(whole_page))
    assert "west did not answer in time E_SILENT 2 1" in page
    assert "west 2 of 3" in page
    assert "1 of 3 rounds went on without" in page


def test_a_site_that_fell_after_its_update_was_in_is_not_counted_as_absent(page_of: Callable[..., str], whole_page: str) -> None:
    def fall(content: dict[str, Any]) -> None:
        content["metrics.jsonl"][2]["fallen"] = [{"site": "north", "why": "E_SITE_FAILED"}]

    page = text_of(tree(page_of(fall)))
    assert "those are in the sums" in page
    assert "north failed while answering E_SITE_FAILED 3 1" in page
    assert "north 3 of 3" in page
    assert "1 of 3 rounds went on without" in page
    assert "those are in the sums" not in text_of(tree(whole_page))


def test_rounds_paid_for_twice_are_told(whole_page: str) -> None:
    assert "1 round was trained again after an interruption and charged again: 3." in whole_page


def test_a_digest_that_is_not_the_plans_is_shown_as_such(page_of: Callable[..., str]) -> None:
    assert "does not belong to the plan below" in page_of(lambda content: content["run.json"]["plan"].update(digest="00" * 32))
    assert "does not belong to the plan below" not in page_of()


def test_the_plan_is_printed_in_full(whole_page: str) -> None:
    [code] = tree(whole_page).iter("pre")
    assert "".join(code.itertext()).strip() == PLAN.strip()


def test_the_command_can_be_pasted(whole_page: str) -> None:
    assert "fedward simulate 'two classes.toml' --seed 5" in text_of(tree(whole_page))


def test_many_sites_and_classes_still_fit_on_the_page(page_of: Callable[..., str]) -> None:
    def many(content: Parts) -> None:
        names = [f"site-{number:03d}" for number in range(60)]
        run, local = content["run.json"], content["comparison.json"]["local"]
        run["sites"] = [{**run["sites"][0], "site": name} for name in names]
        content["comparison.json"]["local"] = dict.fromkeys(names, local["north"])

    page = page_of(many)
    assert "60 sites, each alone" in page
    assert all(f"site-{number:03d}" in page for number in range(60))


def test_every_score_of_the_federated_model_is_on_the_page(page_of: Callable[..., str]) -> None:
    spelled: list[str] = []

    def make_distinct(content: Parts) -> None:
        values = (number / 1000 for number in range(501, 600))
        federated = content["comparison.json"]["federated"]
        level, intervals = federated["patients"], federated["intervals"]
        places = [(level, name) for name in ("auc", "accuracy", "balanced_accuracy")]
        places += [(intervals[name], edge) for name in ("auc", "accuracy", "balanced_accuracy") for edge in ("low", "high")]
        places += [(line, name) for line in level["classes"] for name in ("auc", "precision", "recall", "f1")]
        for place, name in places:
            place[name] = next(values)
            spelled.append(f"{place[name]:.3f}")
        level["confusion"] = [[1711, 1712], [1721, 1722]]
        spelled.extend(["1,711", "1,712", "1,721", "1,722"])

    page = text_of(tree(page_of(make_distinct)))
    assert len(spelled) == 21
    assert [number for number in spelled if number not in page] == []


@pytest.mark.parametrize("model", ["pooled", "not_private", "north"])
def test_every_model_stands_beside_the_federated_one_with_its_interval(page_of: Callable[..., str], model: str) -> None:
    def mark(content: Parts) -> None:
        comparison = content["comparison.json"]
        found = comparison[model] if model in comparison else comparison["local"][model]
        found["patients"]["auc"] = 0.777
        found["intervals"]["auc"] = {"low": 0.666, "high": 0.888}

    assert "0.777 0.666 to 0.888" in text_of(tree(page_of(mark)))


def test_scores_that_count_images_are_not_called_patients(page_of: Callable[..., str]) -> None:
    page = text_of(tree(page_of(lambda content: content["comparison.json"].update(federated=scores(2.0, with_patients=False)))))
    assert "Scores on the hold-out, per image" in page
    assert "on 120 images that no site trained on" in page
    assert "so no interval could be given" in page
    assert "resampling the patients" not in page


def test_a_hold_out_of_one_class_has_no_auc_and_says_so(page_of: Callable[..., str]) -> None:
    def one_class(content: Parts) -> None:
        for found in (content["comparison.json"]["federated"], *content["comparison.json"]["local"].values()):
            found["patients"]["auc"] = found["intervals"]["auc"] = None
        content["predictions.json"]["labels"] = [0] * 40

    page = page_of(one_class)
    assert "reaches an AUC of an undefined value" not in page
    assert "AUC cannot be said" in page
    assert 'id="roc-title"' not in page


def test_pictures_and_curves_that_do_not_belong_together_are_not_drawn(page_of: Callable[..., str]) -> None:
    def tear(content: Parts) -> None:
        content["membership.json"]["models"]["alone"]["curve"].pop()
        content["inversion.json"]["pictures"][1]["pixels"][0].pop()

    page = page_of(tear)
    assert "do not belong to its 4 rates" in page
    assert "not rectangles" in page
    assert 'id="membership-title"' not in page
    assert 'id="inversion-title"' not in page


def test_an_attack_that_finds_more_than_is_promised_breaks_the_promise_in_red(page_of: Callable[..., str], whole_page: str) -> None:
    assert "broken-promise" not in whole_page
    root = tree(page_of(lambda content: content["membership.json"]["models"]["federated"]["found"][0]["interval"].update(low=0.095)))
    [alarm] = [element for element in root.iter() if element.get("id") == "broken-promise"]
    assert alarm.get("class") == "alarm"
    assert "the promise allows 9.0" in text_of(alarm)


def test_a_share_that_so_few_strangers_cannot_show_is_a_dash(whole_page: str) -> None:
    assert "Federated, not private 301, 251 0.550 0.510 to 0.590 2.1 % 0.4 % to 3.0 % –" in text_of(tree(whole_page))


SHOWN = [
    ("run.json", "seed"),
    ("run.json", "workers"),
    ("run.json", "sites", 0, "images"),
    ("run.json", "sites", 1, "patients"),
    ("run.json", "sites", 2, "classes", "nodule"),
    ("run.json", "holdout", "patients"),
    ("run.json", "privacy", "epsilon"),
    ("run.json", "privacy", "delta"),
    ("run.json", "intake", "rejected", "E_DATA_UNREADABLE"),
    ("metrics.jsonl", 0, "seconds"),
    ("metrics.jsonl", 1, "auc"),
    ("metrics.jsonl", 1, "balanced_accuracy"),
    ("metrics.jsonl", 1, "epsilon"),
    ("comparison.json", "seconds", "pooled"),
    ("predictions.json", "federated", 0, 1),
    ("predictions.json", "labels", 0),
    ("ledgers/west.jsonl", 3, "fact", "after", "outside"),
    ("membership.json", "models", "federated", "auc"),
    ("membership.json", "models", "not_private", "found", 0, "share"),
    ("membership.json", "models", "alone", "curve", 2),
    ("membership.json", "models", "alone", "strangers"),
    ("membership.json", "allowed", 1),
    ("inversion.json", "noise_multiplier"),
    ("inversion.json", "pictures", 1, "psnr"),
    ("inversion.json", "pictures", 2, "pixels", 1, 1),
]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: "/".join(map(str, path)))
def test_a_number_that_changes_in_the_folder_changes_the_page(page_of: Callable[..., str], whole_page: str, path: tuple[Any, ...]) -> None:
    def change(content: Parts) -> None:
        *above, last = path
        place = content
        for step in above:
            place = place[step]
        old = place[last]
        place[last] = (
            1 - old
            if path[0] == "predictions.json"
            else old - 60
            if path[0] == "inversion.json" and isinstance(old, int)
            else old + 1
            if isinstance(old, int)
            else old * 0.83
        )

    assert page_of(change) != whole_page


def counted_lines() -> list[dict[str, Any]]:
    """A statistic, an evaluation, one that failed, with a patient's key where no report may find it."""

    def about(value: float, width: float) -> dict[str, float]:
        return {"value": value, "low": value - width, "high": value + width}

    judged = {
        "units": 301.4,
        "noise_sd": 2.5,
        "num_sites": 3,
        "auc": about(0.812, 0.05),
        "tied": about(0.13, 0.02),
        "accuracy": about(0.777, 0.04),
        "balanced_accuracy": about(0.766, 0.05),
        "recall": [about(0.811, 0.06), None],
        "patient": PATIENT_KEY,
    }
    known = {
        "units": about(92.2, 6),
        "noise_sd": 2.1,
        "classes": [about(60.4, 4), about(31.8, 4)],
        "mean": about(0.4217, 0.01),
        "std": about(0.1888, 0.01),
    }
    common = {"sites": list(SITES), "missing": [], "noised": True, "charged": True}
    return [
        {"kind": "STAT", "round": 1, "after_round": 0, "statistic": known, **common},
        {"kind": "EVAL", "round": 3, "after_round": 2, "failure": "E_PRIVACY_BUDGET", **common, "sites": []},
        {"kind": "EVAL", "round": 4, "after_round": 3, "evaluation": judged, **common},
    ]  # fmt: skip


def counting(content: Parts) -> None:
    content["counted.jsonl"] = counted_lines()


def test_what_the_sites_counted_is_shown_as_noised_and_charged(page_of: Callable[..., str], whole_page: str) -> None:
    page = page_of(counting)
    section = next(each for each in tree(page).iter() if each.get("id") == "judged")
    said = text_of(section)
    assert "Noised and charged" in said
    assert "0.8120.762 to 0.862" in said.replace(" 0.762", "0.762")
    assert "13 % are in one bin" in said
    assert "standard deviation of 2.500" in said
    rows = [text_of(row) for row in section.iter() if row.tag.endswith("tr")][1:]
    assert [row.split()[0] for row in rows] == ["2", rows[1].split()[0]]
    assert "E_PRIVACY_BUDGET" in rows[0]
    asked = text_of(next(each for each in tree(page).iter() if each.get("id") == "statistic"))
    assert "92 (86 to 98) patients" in asked or "92 (86 to 98) images" in asked
    assert "normal 60 (56 to 64) and nodule 32 (28 to 36)" in asked
    assert "0.422 (0.412 to 0.432)" in asked
    assert PATIENT_KEY not in page
    assert "not noised and summed with the others" in page
    assert 'id="judged"' not in whole_page
    assert "No site sends a count, a score or a loss." in whole_page


def test_an_evaluation_paid_for_beside_a_round_is_no_retraining(page_of: Callable[..., str]) -> None:
    def judge(content: Parts) -> None:
        counting(content)
        for site in SITES:
            lines = content[f"ledgers/{site}.jsonl"]
            lines[:] = lines[:4]  # every round once
            beside = charged(3, 2.5)
            beside["fact"]["kind"] = "EVAL"
            lines.append(beside)

    assert "trained again" not in page_of(judge)


def test_a_counted_line_cut_short_costs_that_line_alone(page_of: Callable[..., str]) -> None:
    def cut(content: Parts) -> None:
        content["counted.jsonl"] = "".join(json.dumps(line) + "\n" for line in counted_lines())[:-20]

    page = page_of(cut)
    assert "E_PRIVACY_BUDGET" in page
    assert "counted.jsonl" in page


def test_held_out_patients_are_scored_by_the_site_that_they_come_from(page_of: Callable[..., str]) -> None:
    def told(content: Parts) -> None:
        shown = [{"name": "north", "patients": 21, "scores": scores(2.5)}, {"name": "west", "patients": 19, "scores": scores(1.0)}]
        content["comparison.json"]["by_site"] = {"shown": shown, "hidden": 2}

    text = text_of(tree(page_of(told)))
    assert "By the site that held-out patients come from" in text
    for name, patients, noise in (("north", 21, 2.5), ("west", 19, 1.0)):
        assert re.search(rf"{name} {patients} {scores(noise)['patients']['auc']:.3f}", text)
    assert "Not shown: 2 sites with fewer than ten" in text
    assert "held-out patients come from" not in text_of(tree(page_of()))
