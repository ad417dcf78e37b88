# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes, read back by Prometheus' own parser."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common.counting import Estimate
from server.aggregation import SILENT
from server.live import story
from server.live.look import Look
from server.live.metrics import registry
from server.live.processes import Process
from server.live.status import Status
from tests.server.live.runs import SITES, begun, whole_round
from tests.server.live.test_view import judged

ROOT = Path(__file__).parents[3]
MANUAL = ROOT / "docs" / "monitoring.md"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def busy() -> Status:
    """A run with something of everything."""
    status = begun()
    for number in range(1, 6):
        status = whole_round(status, number, now=1000.0 + 30 * number, lost={"mercy": "E_PRIVACY_BUDGET"} if number > 3 else {})
    status = story.evaluated(status, *judged(3, Estimate(value=0.8, low=0.7, high=0.9)), 1200.0)
    done, figures = judged(5, Estimate(value=0.85, low=0.75, high=0.95))
    status = story.evaluated(status, done, replace(figures, balanced_accuracy=Estimate(value=0.8, low=0.6, high=0.9)), 1201.0)
    status = story.round_opened(status, 6, list(SITES), 1210.0)
    return replace(story.phase_opened(status, "KEYS", SITES, 1210.0), written=1215.0, journal_bytes=4096)


def look_at_busy() -> Look:
    processes = (Process(name="superlink", state="running", since=1.0, restarts=2), Process(name="serverapp", state="failed", since=1.0))
    return Look(at=1220.0, status=busy(), processes=processes)


def scrape(look: Callable[[], Look]) -> Samples:
    text = generate_latest(registry(look)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[(name, tuple(sorted(labels.items())))]


def test_a_scrape_says_what_the_status_says() -> None:
    found = scrape(look_at_busy)
    assert value(found, "fedward_rounds_committed_total") == 5
    assert value(found, "fedward_round") == 6
    assert value(found, "fedward_run_state", state="running") == 1
    assert value(found, "fedward_sites", state="asked") == 5
    assert value(found, "fedward_failures_total", code="E_PRIVACY_BUDGET") == 2
    assert value(found, "fedward_site_rounds_total", site="mercy") == 3
    assert value(found, "fedward_site_received_bytes_total", site="north") == 5 * 5 * 1000
    assert value(found, "fedward_step_seconds_sum", of="update", step="train") == 25.0
    assert value(found, "fedward_step_seconds_count", of="update", step="train") == 5
    assert value(found, "fedward_open_step_seconds") == 10.0
    assert value(found, "fedward_last_commit_timestamp_seconds") == 1180.0
    assert value(found, "fedward_plan_epsilon") == 8.0
    assert value(found, "fedward_journal_bytes") == 4096
    assert value(found, "fedward_released_auc", bound="low") == 0.75, "the newest evaluation"
    assert value(found, "fedward_process_up", process="serverapp") == 0
    assert value(found, "fedward_process_restarts_total", process="superlink") == 2
    assert value(found, "fedward_coordinator_up") == 1


def test_the_first_failure_of_its_kind_can_be_seen_to_grow() -> None:
    """Prometheus sees no growth in a counter that begins at one."""
    before = scrape(lambda: Look(at=1000.0, status=begun()))
    assert value(before, "fedward_failures_total", code="E_EQUIVOCATION") == 0
    after = story.site_heard(begun(), "KEYS", "mercy", "E_EQUIVOCATION", 0, 1001.0)
    assert value(scrape(lambda: Look(at=1001.0, status=after)), "fedward_failures_total", code="E_EQUIVOCATION") == 1


def test_a_dead_coordinator_is_down_and_its_figures_stay() -> None:
    found = scrape(lambda: replace(look_at_busy(), at=9999.0))
    assert value(found, "fedward_coordinator_up") == 0
    assert value(found, "fedward_rounds_committed_total") == 5


def test_what_is_not_known_is_left_out_and_never_zero() -> None:
    nothing = scrape(lambda: Look(at=1.0, status=None))
    assert {name for name, _ in nothing} == {"fedward_status_readable"}
    fresh = {name for name, _ in scrape(lambda: Look(at=1000.0, status=begun()))}
    assert not fresh & {"fedward_last_commit_timestamp_seconds", "fedward_update_norm", "fedward_round_seconds", "fedward_left_seconds"}
    broken = scrape(lambda: Look(at=1.0, status=None, problem="another version's"))
    assert value(broken, "fedward_status_readable") == 0


def test_counters_only_grow_within_a_session() -> None:
    before = story.phase_opened(story.round_opened(begun(), 1, list(SITES), 1000.0), "KEYS", SITES, 1000.0)
    told: list[Samples] = []
    for number in range(1, 5):
        before = whole_round(before, number, now=1000.0 + 40 * number, lost={"west": SILENT})
        before = story.resume(before, begun(now=1035.0 + 40 * number), [])
        told.append(scrape(partial(Look, at=2000.0, status=before)))
    for earlier, later in pairwise(told):
        counters = {key: count for key, count in earlier.items() if key[0].endswith(("_total", "_count", "_sum"))}
        assert len(counters) > 20
        assert all(later[key] >= count for key, count in counters.items())


def test_every_family_is_in_the_manual() -> None:
    manual = MANUAL.read_text(encoding="utf-8")
    families = {family.name for family in text_string_to_metric_families(generate_latest(registry(look_at_busy)).decode())}
    assert {family for family in families if f"`{family}" not in manual} == set()


def test_the_manual_has_no_family_that_is_not_there() -> None:
    exposed = {name for name, _ in scrape(look_at_busy)}
    section = MANUAL.read_text(encoding="utf-8").partition("## Metrics of the coordinator")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(fedward_\w+)", section))
    assert len(named) > 25
    assert named <= exposed
