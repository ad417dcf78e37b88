# SPDX-License-Identifier: Apache-2.0
"""The status for Prometheus, made anew from the run folder at each scrape.

Nothing is counted in this process, so counters go on where they stood when the coordinator, or this server, is started again. A figure that
is not known is left out, never zero. Of a site there is what the coordinator knows of everybody: whether it answers, in how many rounds it
took part, how much it sent. Figures about the model are the released ones alone: noised, with their intervals.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from server.live.look import Look, pace, time_left
from server.live.reasons import known
from server.live.status import RunState, SiteState, Status
from server.live.wording import kind_word, step_word

_STATES: Final = get_args(RunState)
_SITE_STATES: Final = get_args(SiteState)


class RunMetrics(Collector):
    """All families, from one look."""

    def __init__(self, look: Callable[[], Look]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        seen = self._look()
        yield _gauge("fedward_status_readable", "1 if the run's status can be read, or there is none yet.", float(not seen.problem))
        if seen.status is not None:
            yield _gauge(
                "fedward_coordinator_up", "1 while the coordinator writes its status, or has ended as it should.", float(not seen.gone)
            )
            yield from _run(seen.status)
            yield from _pace(seen.status, seen.at)
            yield from _steps(seen.status, seen.at)
            yield from _sites(seen.status)
            yield from _released(seen.status)
        yield from _processes(seen)


def registry(look: Callable[[], Look]) -> CollectorRegistry:
    """A registry of its own, with nothing else in it."""
    found = CollectorRegistry(auto_describe=False)
    found.register(RunMetrics(look))
    return found


def _run(status: Status) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "fedward_run",
        "Which plan is trained, in which session, by which version.",
        value={"plan": status.plan.name, "digest": status.plan.digest, "session": status.session, "version": status.fedward},
    )
    states = GaugeMetricFamily("fedward_run_state", "1 for what the run does.", labels=["state"])
    for state in _STATES:
        states.add_metric([state], float(state == status.state))
    yield states
    yield _gauge("fedward_rounds_planned", "Rounds of the plan.", status.plan.rounds)
    yield _gauge("fedward_minimum_cohort", "Fewest sites that the plan makes a round of.", status.plan.minimum_cohort)
    yield CounterMetricFamily("fedward_rounds_committed", "Rounds that are committed.", value=status.committed)
    yield _gauge("fedward_round", "The round that is open, or was open last.", status.round)
    yield CounterMetricFamily("fedward_coordinator_starts", "How often the coordinator was started in this session.", value=status.starts)
    yield _gauge("fedward_journal_bytes", "Size of the journal on disk.", status.journal_bytes)
    if status.plan.epsilon is not None and status.plan.delta is not None:
        yield _gauge("fedward_plan_epsilon", "Epsilon that the plan promises over all rounds; public.", status.plan.epsilon)
        yield _gauge("fedward_plan_delta", "Delta of that promise; public.", status.plan.delta)
    yield _failures(status)


def _failures(status: Status) -> Metric:
    """Codes that never came up are zero: a counter that begins at one has not grown, and no alert would see it."""
    failures = CounterMetricFamily("fedward_failures", "Absences from rounds, by code.", labels=["code"])
    for code in sorted(known() | set(status.failed)):
        failures.add_metric([code], status.failed.get(code, 0))
    return failures


def _pace(status: Status, now: float) -> Iterator[Metric]:
    if status.history:
        last = status.history[-1]
        yield _gauge("fedward_last_commit_timestamp_seconds", "When the last round was committed.", last.at)
        yield _gauge("fedward_last_round_seconds", "How long the last round took.", last.seconds)
        yield _gauge("fedward_last_round_sites", "Sites in the last sum.", last.sites)
        yield _gauge("fedward_last_round_missing", "Sites that were asked in the last round and are not in its sum.", last.missing)
        yield _gauge("fedward_update_norm", "L2 norm of the last mean update.", last.update_norm)
    found, remaining = pace(status), time_left(status, now)
    if found is not None:
        rounds = GaugeMetricFamily("fedward_round_seconds", "Quartiles of the last rounds' seconds.", labels=["quantile"])
        for quantile, value in (("0.25", found.low), ("0.5", found.median), ("0.75", found.high)):
            rounds.add_metric([quantile], value)
        yield rounds
        yield _gauge("fedward_updates_per_minute", "Updates in sums, a minute, over the last rounds.", found.updates_per_minute)
    if remaining is not None:
        yield _gauge("fedward_left_seconds", "Time to the last commit if rounds go on as they did.", remaining.likely)


def _steps(status: Status, now: float) -> Iterator[Metric]:
    took = SummaryMetricFamily("fedward_step_seconds", "How long steps of rounds took.", labels=["of", "step"])
    for phase, each in sorted(status.took.items()):
        took.add_metric([kind_word(phase), step_word(phase)], count_value=each.times, sum_value=each.seconds)
    yield took
    open_for = now - status.phase_since if status.phase else 0.0
    yield _gauge("fedward_open_step_seconds", "How long the open step has been open; 0 between steps.", open_for)
    yield _gauge("fedward_step_deadline_seconds", "How long a step may be open, by the plan.", status.plan.deadline_s)


def _sites(status: Status) -> Iterator[Metric]:
    counts = Counter(site.state for site in status.sites)
    states = GaugeMetricFamily("fedward_sites", "Sites by what they do.", labels=["state"])
    for state in _SITE_STATES:
        states.add_metric([state], counts[state])
    yield states
    rounds = CounterMetricFamily("fedward_site_rounds", "Committed rounds whose sum holds the site's update.", labels=["site"])
    received = CounterMetricFamily("fedward_site_received_bytes", "Bytes of answers received from the site.", labels=["site"])
    seen = GaugeMetricFamily("fedward_site_last_seen_timestamp_seconds", "When the site last answered anything.", labels=["site"])
    for site in status.sites:
        rounds.add_metric([site.name], site.rounds)
        received.add_metric([site.name], site.bytes_up)
        if site.last_seen is not None:
            seen.add_metric([site.name], site.last_seen)
    yield from (rounds, received, seen)


def _released(status: Status) -> Iterator[Metric]:
    """The newest evaluation that came about."""
    newest = next((judged for judged in reversed(status.judged) if judged.figures is not None), None)
    if newest is None or newest.figures is None:
        return
    yield _gauge("fedward_released_after_round", "Which round's model the released figures are of.", newest.after_round)
    for name, found in (("auc", newest.figures.auc), ("balanced_accuracy", newest.figures.balanced_accuracy)):
        if found is not None:
            family = GaugeMetricFamily(f"fedward_released_{name}", "Noised, with its 95 % interval.", labels=["bound"])
            for bound, value in (("value", found.value), ("low", found.low), ("high", found.high)):
                family.add_metric([bound], value)
            yield family


def _processes(seen: Look) -> Iterator[Metric]:
    up = GaugeMetricFamily("fedward_process_up", "1 while the program runs.", labels=["process"])
    restarts = CounterMetricFamily("fedward_process_restarts", "How often the supervisor started the program again.", labels=["process"])
    for process in seen.processes:
        up.add_metric([process.name], float(process.state == "running"))
        restarts.add_metric([process.name], process.restarts)
    yield from (up, restarts)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)
