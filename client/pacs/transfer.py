# SPDX-License-Identifier: Apache-2.0
"""One import from its listing to its account, whatever language the archive speaks.

    find -> (what is here already) -> what is missing, a few of one series at once -> fetch -> what has landed -> account

What is asked for is what is missing, so an import that was killed goes on where it was by being started again, and one that runs every
night brings the news. A failure that may pass is tried again later, one by one. Where nothing comes any more the import ends, says so, and
counts what it did not reach: the sum always holds.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from threading import Event
from typing import Final

from client.mailbox.retrying import delays
from client.pacs.account import Import, Line
from client.pacs.archive import AT_MOST, Archive
from client.pacs.failure import PASSING, Failed, Reason
from client.pacs.landing import Landing
from client.pacs.pace import Pace
from client.pacs.query import Query
from client.pacs.wanted import Wanted
from common.errors import DiskFull, FedwardError, PacsAnswer, PacsAway, PacsRefused

Progress = Callable[[int, int, int], None]
"""Instances done, failed, and asked for."""
_HOPELESS: Final = 3
_GONE: Final = frozenset({Reason.AWAY, Reason.BUSY, Reason.SILENT, Reason.SLOW, Reason.BROKEN_OFF})


class Transfer:
    """One import. `stop` may be set at any time, by a signal: what runs is finished, and the rest is accounted for."""

    def __init__(
        self, archive: Archive, landing: Landing, *, pace: Pace, tries: int, stop: Event, progress: Progress | None = None
    ) -> None:
        self._archive, self._landing, self._pace = archive, landing, pace
        self._tries, self._stop, self._progress = tries, stop, progress
        self._without_answer = 0

    def listed(self, queries: Sequence[Query]) -> list[Wanted]:
        """Everything that any of the queries asks for, once. Raises: PacsAway, PacsRefused, PacsAnswer."""
        found: dict[str, Wanted] = {}
        for query in queries:
            answers = 0
            try:
                for answers, wanted in enumerate(self._archive.find(query), start=1):
                    found[wanted.instance] = wanted
                    if max(answers, len(found)) > AT_MOST:
                        raise PacsAnswer(f"the archive lists more than {AT_MOST} instances.", fix="Narrow the --query.")
            except Failed as failure:
                raise PacsAway(
                    f"the archive's listing failed time and again ({failure.reason.value}); nothing was asked for.",
                    fix="Look whether it is up and reachable from here, then run the import again.",
                ) from failure
            self._without_answer += not answers
        return sorted(found.values(), key=lambda each: (each.study, each.series, each.sop_class, each.instance))

    def run(self, wanted: Sequence[Wanted]) -> Import:
        """Bring what is missing. What ends it early is in what it returns, beside the account."""
        lines = {each: Line(wanted=each, came="before", arrived=here) for each in wanted if (here := self._landing.arrived(each))}
        missing = [each for each in wanted if each not in lines]
        stopped: FedwardError | None = None
        hopeless = failed = 0
        try:
            for batch in _batches(missing, self._archive.batch):
                if self._stop.is_set():
                    break
                brought = self._bring(batch)
                lines.update(brought)
                hopeless = hopeless + 1 if all(line.reason in _GONE for line in brought.values()) else 0
                if hopeless == _HOPELESS:
                    raise PacsAway("the archive does not send any more.", fix="What has come is kept; run the import again later.")
                failed += sum(line.came is None for line in brought.values())
                if self._progress is not None:
                    self._progress(len(lines) - failed, failed, len(wanted))
        except (DiskFull, PacsRefused, PacsAway) as error:
            stopped = error
        return Import(
            lines=[lines.get(each) or self._unreached(each) for each in wanted],
            gaps=self._archive.gaps,
            without_answer=self._without_answer,
            stopped=stopped,
        )

    def _bring(self, batch: Sequence[Wanted]) -> dict[Wanted, Line]:
        """Some instances of one series, with as many tries as are allowed.

        Where several were asked for at once, what one of them did to the connection is laid at the door of all; and perhaps the archive
        takes no lists. So those that did not come are asked for one by one then, before any of that counts as a try.
        """
        lines: dict[Wanted, Line] = {}
        groups: list[Sequence[Wanted]] = [batch]
        for number, pause in enumerate(delays(first=0.5, longest=60.0), start=1):
            asked_to_wait = 0.0
            for group in groups:
                if self._stop.is_set() and lines:
                    break
                self._pace.before(len(group))
                failures = self._archive.fetch(group, self._landing)
                for each in group:
                    failure = failures.get(each) or Failed(Reason.NOT_SENT)
                    lines[each] = self._line(each, failure)
                    asked_to_wait = max(asked_to_wait, failure.wait_s)
            together = number == 1 and len(batch) > 1
            groups = [[each] for each, line in lines.items() if line.reason in PASSING or (line.reason and together)]
            tries = self._tries + (len(batch) > 1)
            if not groups or number >= tries or self._stop.wait(max(pause, asked_to_wait)):
                break
        return lines

    def _line(self, wanted: Wanted, failure: Failed) -> Line:
        here = self._landing.arrived(wanted)
        return Line(wanted=wanted, came="now", arrived=here) if here else Line(wanted=wanted, came=None, reason=failure.reason)

    def _unreached(self, wanted: Wanted) -> Line:
        """What landed in a batch that was not brought to its end has come all the same."""
        return self._line(wanted, Failed(Reason.NOT_REACHED))


def _batches(wanted: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    """Neighbours of one series and kind, at most `size` at once."""
    for _, group in groupby(wanted, key=lambda each: (each.study, each.series, each.sop_class)):
        together = list(group)
        yield from (together[start : start + size] for start in range(0, len(together), size))
