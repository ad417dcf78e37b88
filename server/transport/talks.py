# SPDX-License-Identifier: Apache-2.0
"""Talking to several groups at the same time, each of which is told as a story of its own.

A `Talk` is a generator: it yields a `Question`, is handed what was `Heard`, and returns what it came for. So a group's round can be read
from top to bottom (`server.fsa1`), and still no group waits for another: `side_by_side` puts the questions of all talks that stand at the
same step as one set, and those furthest behind first. A talk that fails by name ends alone.

A reply counts when it decodes, and when the question's `keep` has taken it; what is wrong with another is kept as a code.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from flwr.app import RecordDict

from common import wire
from common.errors import FedwardError, ProtocolError, RoundError, UpdateError
from common.records import size_of
from common.secagg.messages import Step
from common.secagg.quantise import Grid
from common.secagg.terms import Kind
from common.update import Vector
from server.aggregation import FAILED, SILENT, Observer
from server.gate import Gate
from server.membership.roll import Roll
from server.phases import Heard
from server.transport.patience import Patience

T = TypeVar("T")
_LONGEST_PAUSE_S: Final = 60.0
_TRAINING: Final = 1 / 3
"""After which part of the deadline a site that trains is asked again, if nothing else says that the question was lost."""
Keep = Callable[[str, wire.SecureReply], None]
"""What is done with a reply before it counts; raises what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One step to several sites: control bytes by site, and the model beside the first.

    With `needed` good answers the step can go on after a grace; None waits for everybody until the deadline. `again`: how often this has
    been asked in vain. `nodes` is looked up when it is asked: who is not there then is silent.
    """

    round: int
    step: Step
    contents: Mapping[str, bytes]
    nodes: Mapping[str, int]
    kind: Kind = Kind.UPDATE
    needed: int | None = None
    model: Vector | None = None
    keep: Keep | None = None
    again: int = 0

    @property
    def phase(self) -> str:
        return phase_name(self.kind, self.step)

    def of(self, sites: Iterable[str]) -> "Question":
        return replace(self, contents={site: self.contents[site] for site in sites})


def phase_name(kind: Kind, step: Step) -> str:
    """What observers know a step by."""
    return step.name if kind is Kind.UPDATE else f"{kind.name} {step.name}"


Talk = Generator[Question, Heard, T]
FAILURES = (RoundError, ProtocolError, UpdateError)
"""What ends a talk by name, and no more than that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Whoever asks: whom, for how long, and what a reply looks like."""

    roll: Roll
    gate: Gate
    observer: Observer
    deadline_s: float
    num_values: int
    grid: Grid

    def side_by_side(self, talks: Mapping[int, Talk[T]]) -> dict[int, T | FedwardError]:
        """What every talk came for, or the error of `FAILURES` that it ended with."""
        ended: dict[int, T | FedwardError] = {}
        due: dict[int, Question] = {}

        def go_on(group: int, step: Callable[[], Question]) -> None:
            try:
                due[group] = step()
            except StopIteration as done:
                ended[group] = done.value
            except FAILURES as error:
                ended[group] = error

        for group, talk in talks.items():
            go_on(group, talk.__next__)
        while due:
            behind = min(question.step for question in due.values())
            asked = {group: due.pop(group) for group, question in list(due.items()) if question.step is behind}
            for group, heard in self._ask(asked).items():
                go_on(group, lambda group=group, heard=heard: talks[group].send(heard))  # type: ignore[misc] # bound here
        return ended

    def _ask(self, questions: Mapping[int, Question]) -> dict[int, Heard]:
        """One step to several groups; it ends when none of them has patience left. Raises: RunStopped."""
        self.gate.pass_by()
        if again := max(question.again for question in questions.values()):
            self.gate.sleep(min(_LONGEST_PAUSE_S, 2.0**again - 2))
            self.roll.call(with_news=False)
        any_question = next(iter(questions.values()))
        named = {
            question.nodes[site]: (group, site)
            for group, question in questions.items()
            for site in question.contents
            if site in question.nodes
        }
        there = Counter(group for group, _ in named.values())
        patience = {group: Patience(self.deadline_s, asked=there[group], needed=question.needed) for group, question in questions.items()}
        replies: dict[int, dict[str, bytes]] = {group: {} for group in questions}
        missing = {group: dict.fromkeys(question.contents, SILENT) for group, question in questions.items()}
        complaints: dict[int, dict[str, bytes]] = {group: {} for group in questions}
        for question in questions.values():
            self.observer.phase_opened(question.round, question.phase, asked=sorted(question.contents))
        for answer in self.roll.line.ask(
            wire.SECURE[any_question.step.name],
            _encoded(questions.values()),
            group=str(any_question.round),
            deadline_s=self.deadline_s,
            expected_s=self.deadline_s * _TRAINING if any_question.step is Step.KEYS else 0.0,
            until=lambda: max(each.end for each in patience.values()),
        ):
            group, site = named[answer.node]
            verdict = self._judge(questions[group], site, answer.content)
            if isinstance(verdict, bytes):
                replies[group][site] = verdict
                del missing[group][site]
            else:
                missing[group][site] = verdict.code
                if verdict.complaint:
                    complaints[group][site] = verdict.complaint
            patience[group].note(good=isinstance(verdict, bytes))
            self._tell(questions[group], site, verdict, answer.content)
        now = int(time.time())
        return {group: Heard(replies=replies[group], missing=missing[group], at=now, complaints=complaints[group]) for group in questions}

    def _tell(self, question: Question, site: str, verdict: bytes | wire.Refusal, content: RecordDict | None) -> None:
        code = verdict.code if isinstance(verdict, wire.Refusal) else None
        bytes_up = size_of(content) if content is not None else 0
        self.observer.site_heard(question.round, question.phase, site, code=code, bytes_up=bytes_up)
        if question.step is Step.KEYS:
            self.observer.site_answered(question.round, site, refused=code is not None)

    def _judge(self, question: Question, site: str, content: RecordDict | None) -> bytes | wire.Refusal:
        """A site's control bytes, or its refusal, or what is as good as one."""
        if content is None:
            return wire.Refusal(site=site, code=FAILED)
        try:
            reply = wire.decode_secure_reply(content, self.num_values, self.grid.word)
            if isinstance(reply, wire.Refusal):
                return reply
            if question.keep is not None:
                question.keep(site, reply)
        except (ProtocolError, UpdateError) as error:
            return wire.Refusal(site=site, code=error.code)
        return reply.control


def _encoded(questions: Iterable[Question]) -> dict[int, RecordDict]:
    """By node; the same bytes to several sites are one record."""
    records: dict[bytes, RecordDict] = {}
    by_node = {}
    for question in questions:
        for site, control in question.contents.items():
            if site not in question.nodes:
                continue
            if control not in records:
                request = wire.SecureRequest(round=question.round, control=control, model=question.model)
                records[control] = wire.encode_secure_request(request)
            by_node[question.nodes[site]] = records[control]
    return by_node
