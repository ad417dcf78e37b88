# SPDX-License-Identifier: Apache-2.0
"""The status in a terminal of eighty columns: `fedward server status`, once or until it is interrupted.

What a page shows in colour and position stands here in words and columns, in the same sentences. Sites in trouble come first, so that a
long list may be cut at its end.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.live.look import Look, look, pace, time_left
from server.live.reasons import of_run, reason
from server.live.status import SiteStatus, Status, as_json
from server.live.wording import duration, headline, kind_word, left, site_word, size, step_word

SITES_SHOWN: Final = 24
_FAILURES_SHOWN: Final = 5
_COLOURS: Final = {"calm": "bold", "attention": "bold yellow", "alarm": "bold red"}
_ORDER: Final = ("failed", "refused", "silent", "revoked", "left", "paused", "asked", "unheard", "answered", "not in cohort")
_SITE_COLOURS: Final = {"failed": "red", "refused": "red", "silent": "red", "asked": "yellow", "answered": "green"}


def render(seen: Look, *, all_sites: bool = False) -> RenderableType:
    """A whole status, at most eighty columns wide."""
    said = headline(seen)
    parts: list[RenderableType] = [Text(said.text, style=_COLOURS[said.tone])]
    if seen.status is not None:
        status = seen.status
        parts = [_title(status), *parts, Text(), _facts(status, seen.at)]
        for table in (_steps(status, seen.at), _sites(status, all_sites=all_sites), _failures(status)):
            parts += [Text(), table] if table else []
    if seen.processes:
        parts += [Text(), _processes(seen)]
    return Group(*parts)


def show(run: Path, console: Console, *, all_sites: bool = False) -> Look:
    """Print once; returns what was seen."""
    seen = look(run)
    console.print(render(seen, all_sites=all_sites))
    return seen


def follow(
    run: Path, console: Console, *, every_s: float = 1.0, all_sites: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Look:
    """Show what changes until the run is over or somebody interrupts."""
    seen = look(run)
    with Live(render(seen, all_sites=all_sites), console=console, auto_refresh=False) as live:
        while not seen.over:
            sleep(every_s)
            seen = look(run)
            live.update(render(seen, all_sites=all_sites), refresh=True)
    return seen


def as_facts(seen: Look) -> dict[str, Any]:
    """The same for machines: the status as its file has it, and what follows from it."""
    status = seen.status
    found, remaining = (pace(status), time_left(status, seen.at)) if status else (None, None)
    return {
        "at": seen.at,
        "gone": seen.gone,
        "headline": headline(seen).text,
        "problem": seen.problem,
        "status": json.loads(as_json(status)) if status else None,
        "seconds_per_round": found.median if found else None,
        "updates_per_minute": found.updates_per_minute if found else None,
        "seconds_left": {"low": remaining.low, "likely": remaining.likely, "high": remaining.high} if remaining else None,
        "processes": [
            {"name": each.name, "state": each.state, "since": each.since, "restarts": each.restarts, "ended": each.ended}
            for each in seen.processes
        ],
    }


def _title(status: Status) -> Text:
    title = Text(status.plan.name, style="bold")
    title.append(f"  plan {status.plan.digest[:12]}  session {status.session[:8]}", style="dim")
    return title


def _facts(status: Status, now: float) -> Table:
    found = pace(status)
    table = Table.grid(padding=(0, 2))
    table.add_row("rounds", f"{status.committed} of {status.plan.rounds} committed")
    speed = "not known yet"
    if found:
        speed = f"{duration(found.median)} a round, {found.updates_per_minute:.1f} updates a minute"
    table.add_row("pace", speed)
    if status.committed < status.plan.rounds:
        table.add_row("left", left(time_left(status, now)))
    if status.deadline is not None:
        table.add_row("deadline", f"this step ends at {_clock(status.deadline, now)} at the latest")
    return table


def _steps(status: Status, now: float) -> Table | None:
    if not status.phases and not status.phase:
        return None
    table = Table(box=None, pad_edge=False, title=f"round {status.round}", title_justify="left", title_style="dim")
    for heading in ("of", "step", "answered", "took"):
        table.add_column(heading, justify="right" if heading in ("answered", "took") else "left", no_wrap=True)
    for done in status.phases:
        table.add_row(kind_word(done.phase), step_word(done.phase), f"{done.answered}/{done.asked}", duration(done.seconds))
    if status.phase:
        asked = [site for site in status.sites if any(step.phase == status.phase for step in site.steps)]
        answered = sum(site.state == "answered" for site in asked)
        row = (kind_word(status.phase), step_word(status.phase), f"{answered}/{len(asked)}", f"{duration(now - status.phase_since)} …")
        table.add_row(*row, style="bold")
    return table


def _sites(status: Status, *, all_sites: bool) -> Table:
    ordered = sorted(status.sites, key=lambda site: (_ORDER.index(site.state), site.name))
    shown = ordered if all_sites else ordered[:SITES_SHOWN]
    table = Table(box=None, pad_edge=False, title=f"{len(ordered)} sites", title_justify="left", title_style="dim")
    table.add_column("site", max_width=18, overflow="ellipsis", no_wrap=True)
    table.add_column("", max_width=31)
    for heading in ("since", "rounds", "sent"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in shown:
        words = Text(_worded(site), style=_SITE_COLOURS.get(site.state, ""))
        table.add_row(site.name, words, _clock(site.since, status.written), str(site.rounds), size(site.bytes_up))
    if len(shown) < len(ordered):
        table.add_row(Text(f"and {len(ordered) - len(shown)} more", style="dim"))
    return table


def _worded(site: SiteStatus) -> str:
    return f"{site_word(site)} ({site.code})" if site.code else site_word(site)


def _failures(status: Status) -> Table | None:
    """The newest of each site and code, and what to do about it."""
    newest = {(failure.site, failure.code): failure for failure in status.failures}
    if not newest:
        return None
    table = Table(box=None, pad_edge=False, title="to look at", title_justify="left", title_style="dim", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for failure in sorted(newest.values(), key=lambda failure: -failure.at)[:_FAILURES_SHOWN]:
        known = reason(failure.code) if failure.site else of_run(failure.code)
        told = Text(f"{failure.site or 'the run stopped:'} {known.what} ({failure.code}). ")
        told.append(known.todo, style="dim")
        table.add_row(f"round {failure.round}", told)
    return table


def _processes(seen: Look) -> Table:
    table = Table(box=None, pad_edge=False, title="programs", title_justify="left", title_style="dim", show_header=False)
    for process in seen.processes:
        restarts = f"restarted {process.restarts} times" if process.restarts != 1 else "restarted once"
        ended = f", last ended by {process.ended}" if process.ended else ""
        state = Text(process.state, style="red" if process.state == "failed" else "")
        table.add_row(process.name, state, f"for {duration(seen.at - process.since)}", restarts + ended if process.restarts else "")
    return table


def _clock(when: float, now: float) -> str:
    """This machine's time of day, with the date where it is another day's."""
    local, today = datetime.fromtimestamp(when).astimezone(), datetime.fromtimestamp(now).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%d %b %H:%M}"
