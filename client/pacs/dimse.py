# SPDX-License-Identifier: Apache-2.0
"""The classic way (PS3.4 C): C-FIND by study, series and image; then C-GET, or C-MOVE to a receiver of our own.

    C-ECHO -> C-FIND STUDY -> C-FIND SERIES -> C-FIND IMAGE -> C-GET / C-MOVE of some instances of one series -> C-STORE

Instances are asked for by their UIDs, a few of one series at once, so that a kill costs a few and an account is exact. Where an archive
does not take a list of UIDs, each is asked for by itself on the second try. What pynetdicom does not limit is limited in `guard`.
"""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes these names when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from client.pacs.archive import AT_MOST, Gaps
from client.pacs.failure import Failed, Reason
from client.pacs.guard import GuardedEntity, Watch, drop_unfinished
from client.pacs.landing import Landing
from client.pacs.query import Level, Query
from client.pacs.receiver import Receiver
from client.pacs.reception import Reception
from client.pacs.retry import Retry
from client.pacs.syntaxes import contexts_for
from client.pacs.wanted import Wanted, is_uid
from common.errors import PacsAnswer, PacsRefused

BATCH: Final = 16
_PENDING: Final = (0xFF00, 0xFF01)
_SUCCESS, _WARNING, _CANCELLED, _DESTINATION_UNKNOWN = 0x0000, 0xB000, 0xFE00, 0xA801
_OUT_OF_RESOURCES: Final = (0xA700, 0xA701, 0xA702)
_NOT_AUTHORISED: Final = 0x0124
_UNABLE: Final = 0xC000
_TRANSIENT: Final = 0x02
_UID_OF: Final = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID", Level.IMAGE: "SOPInstanceUID"}
_LARGEST_ANSWER: Final = 1 << 20
"""Bytes: a few keys of one study, series or instance."""
_MOST_PENDING: Final = 10_000
"""Times that an archive may say that it is at it, until the next instance."""

Answer = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Listed:
    """What is kept of an answer to a search: a listing may have millions, of whatever length the archive likes."""

    uid: str
    sop_class: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The archive, and who we are to it."""

    host: str
    port: int
    called: str
    calling: str
    tls: ssl.SSLContext | None


class Dimse:
    """One association at a time, kept as long as the next request fits it."""

    def __init__(self, peer: Peer, watch: Watch, retry: Retry, reception: Reception, receiver: Receiver | None, *, batch: int) -> None:
        self.batch = batch
        self._peer, self._watch, self._retry = peer, watch, retry
        self._reception, self._receiver = reception, receiver
        self._association: Association | None = None
        self._purpose = ""
        self.gaps = Gaps()

    def close(self) -> None:
        self._hang_up()
        if self._receiver is not None:
            self._receiver.close()

    def echo(self) -> None:
        """C-ECHO: whether anybody is there and lets us in. Raises: Failed, PacsRefused."""
        association = self._call("echo", [build_context(Verification)])
        self._watch.begin()
        with self._watch.over(association):
            status = association.send_c_echo()
        if status.get("Status") != _SUCCESS:
            raise self._lost()

    def find(self, query: Query) -> Iterator[Wanted]:
        for study in self._list({}, query, Level.STUDY):
            studied = {"StudyInstanceUID": study.uid}
            for series in self._list(studied, query, Level.SERIES):
                for found in self._list({**studied, "SeriesInstanceUID": series.uid}, query, Level.IMAGE):
                    yield Wanted(study=study.uid, series=series.uid, instance=found.uid, sop_class=found.sop_class)

    def fetch(self, wanted: Sequence[Wanted], landing: Landing) -> Mapping[Wanted, Failed]:
        landing.check_room()
        if self._receiver is None or not self._receiver.is_busy:
            landing.sweep()
        self._reception.expect(wanted, landing)
        try:
            whole = self._get(wanted, landing) if self._receiver is None else self._move(wanted, landing, self._receiver)
        except Failed as failure:
            whole = failure
        failed = self._reception.close()
        if self._reception.full is not None:
            raise self._reception.full
        return {**dict.fromkeys(wanted, whole), **failed} if whole is not None else failed

    def _get(self, wanted: Sequence[Wanted], landing: Landing) -> Failed | None:
        sop_class = wanted[0].sop_class
        model = StudyRootQueryRetrieveInformationModelGet
        association = self._call(f"get {sop_class}", [build_context(model), *contexts_for(sop_class)], stores=True)
        self._check_offered(association, model)
        if sop_class and not any(context.abstract_syntax == sop_class for context in association.accepted_contexts):
            return Failed(Reason.NOT_OFFERED)
        self._watch.begin(landing.check_room)
        with self._watch.over(association):
            return self._outcome(association.send_c_get(_identifier(wanted), model))

    def _move(self, wanted: Sequence[Wanted], landing: Landing, receiver: Receiver) -> Failed | None:
        model = StudyRootQueryRetrieveInformationModelMove
        association = self._call("move", [build_context(model)])
        self._check_offered(association, model)
        self._watch.begin(landing.check_room)
        with self._watch.over(association):
            outcome = self._outcome(association.send_c_move(_identifier(wanted), self._peer.calling, model))
            while outcome is None and self._reception.waits and receiver.is_busy and not self._watch.is_over:
                receiver.wait()  # some archives say that they are done before the last instance is through
        return outcome

    def _outcome(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> Failed | None:
        status, pending, seen = None, 0, 0
        for answer, _ in answers:
            status = answer.get("Status")
            pending, seen = pending + 1 if seen == self._reception.looked_at else 0, self._reception.looked_at
            if pending > _MOST_PENDING:
                self._hang_up(politely=False)
                return Failed(Reason.SILENT)
        if status in (_SUCCESS, _WARNING):
            return None
        if status is None:
            return self._lost()
        if status == _DESTINATION_UNKNOWN:
            raise PacsRefused(
                f"the archive knows no address for the AE title '{self._peer.calling}', so it cannot send there.",
                fix="Have this AE title entered at the archive, with this computer's address and the port of --move-to.",
            )
        if status == _NOT_AUTHORISED:
            return Failed(Reason.FORBIDDEN)
        if status in _OUT_OF_RESOURCES or status == _CANCELLED:
            return Failed(Reason.BUSY)
        return Failed(Reason.PACS_ERROR if status >= _UNABLE else Reason.REFUSED)

    def _list(self, above: Mapping[str, str], query: Query, level: Level) -> Iterator[Listed]:
        seen: set[str] = set()
        try:
            answers = self._retry(partial(self._ask, above, query, level))
        except Failed as failure:
            if level is Level.STUDY or failure.reason is not Reason.PACS_ERROR:
                raise
            self.gaps.unlisted += 1  # one study that the archive cannot read is no reason to do without the others
            return
        for answer in answers:
            if answer.uid in seen:
                continue
            seen.add(answer.uid)
            if answer.allowed:
                yield answer
            else:
                self.gaps.contradicting += 1

    def _ask(self, above: Mapping[str, str], query: Query, level: Level) -> list[Listed]:
        """One C-FIND, to its end."""
        keys, model = query.at(level), StudyRootQueryRetrieveInformationModelFind
        association = self._call("find", [build_context(model)])
        self._check_offered(association, model)
        asked = Dataset()
        asked.QueryRetrieveLevel = level.value
        if not all(value.isascii() for value in keys.values()):
            asked.SpecificCharacterSet = "ISO_IR 192"
        wanted = {"SOPClassUID": ""} if level is Level.IMAGE else {}
        for key, value in {_UID_OF[level]: "", **wanted, **keys, **above}.items():
            setattr(asked, key, value)
        names = [_UID_OF[level], *wanted, *keys]
        self._watch.begin(largest=_LARGEST_ANSWER)
        found: list[Listed] = []
        with self._watch.over(association):
            for status, answer in association.send_c_find(asked, model):
                if status.get("Status") in _PENDING:
                    found.append(self._listed(_values(answer, names), query, level))
                    if len(found) > AT_MOST:
                        self._hang_up(politely=False)
                        raise PacsAnswer(f"the archive lists more than {AT_MOST} answers to one question.", fix="Narrow the --query.")
                    continue
                self._check_search(status.get("Status"), level)
        return found

    def _listed(self, answer: Answer, query: Query, level: Level) -> Listed:
        """Raises: PacsAnswer."""
        uid = answer[_UID_OF[level]]
        if len(uid) != 1 or not is_uid(uid[0]):
            self._hang_up(politely=False)
            raise PacsAnswer(
                f"the archive lists something whose {_UID_OF[level]} is no UID.", fix="It is not asked for anything more. Tell its vendor."
            )
        sop_class = next(iter(answer.get("SOPClassUID", ())), "")
        return Listed(uid=uid[0], sop_class=sop_class if is_uid(sop_class) else "", allowed=query.allows(answer, level))

    def _check_search(self, status: int | None, level: Level) -> None:
        if status == _SUCCESS:
            return
        if status is None:
            raise self._lost()
        if status in _OUT_OF_RESOURCES or status == _CANCELLED:
            raise Failed(Reason.BUSY)
        if status >= _UNABLE and level is not Level.STUDY:
            raise Failed(Reason.PACS_ERROR)
        raise PacsAnswer(f"the archive refused the search with status {status:04X}.", fix="Leave out a --query key that it may not know.")

    def _call(self, purpose: str, contexts: list[PresentationContext], *, stores: bool = False) -> Association:
        """An association for a purpose. Raises: Failed with AWAY or BUSY, PacsRefused."""
        if self._association is not None and self._association.is_established and self._purpose == purpose:
            return self._association
        self._hang_up()
        self._watch.begin()
        peer, entity = self._peer, GuardedEntity(self._peer.calling, self._watch)
        classes = sorted({str(context.abstract_syntax) for context in contexts[1:]}) if stores else []
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.called,
            ext_neg=[build_role(each, scp_role=True) for each in classes],
            tls_args=(peer.tls, peer.host) if peer.tls else None,
            evt_handlers=[(evt.EVT_C_STORE, self._reception.on_store), (evt.EVT_DIMSE_RECV, self._reception.on_message)],
        )
        if association.is_established:
            self._association, self._purpose = association, purpose
            return association
        if association.is_rejected and _result(association) != _TRANSIENT:
            raise PacsRefused(
                f"'{peer.host}:{peer.port}' does not take calls from '{peer.calling}' for '{peer.called}'.",
                fix="Compare --aet and --called-aet with what the archive has, capitals included.",
            )
        if association.rejected_contexts:  # it answered, and nothing of what was asked for is to be had
            raise self._not_offered(UID(str(contexts[0].abstract_syntax)).name)
        raise Failed(Reason.BUSY if association.is_rejected else Reason.AWAY)

    def _check_offered(self, association: Association, model: Any) -> None:
        if not any(context.abstract_syntax == model for context in association.accepted_contexts):
            self._hang_up()
            raise self._not_offered(model.name)

    def _not_offered(self, name: str) -> PacsRefused:
        return PacsRefused(
            f"the archive does not offer '{self._peer.calling}' {name.rpartition('- ')[2]}.",
            fix="Have it allowed at the archive, or import another way: C-GET, C-MOVE (--move-to) or --dicomweb.",
        )

    def _lost(self) -> Failed:
        """Why a connection ended without an answer. Raises: DiskFull, if we ended it for want of room."""
        why = self._watch.ended_by
        self._hang_up(politely=False)
        if why is None:
            return Failed(Reason.BROKEN_OFF)
        if isinstance(why, Failed):
            return why
        raise why

    def _hang_up(self, *, politely: bool = True) -> None:
        association, self._association = self._association, None
        if association is None:
            return
        self._watch.begin()
        with suppress(Exception), self._watch.over(association):  # gone already is as good
            if politely and association.is_established:
                association.release()
            else:
                association.abort(block=False)
        drop_unfinished(association)


def _identifier(wanted: Sequence[Wanted]) -> Dataset:
    """Instances of one series, by their UIDs (PS3.4 C.4.2.1.4)."""
    found = Dataset()
    found.QueryRetrieveLevel = Level.IMAGE.value
    found.StudyInstanceUID, found.SeriesInstanceUID = wanted[0].study, wanted[0].series
    found.SOPInstanceUID = [each.instance for each in wanted]
    return found


def _values(answer: Dataset | None, names: Sequence[str]) -> Answer:
    """An answer's values by keyword; what does not parse is not there."""
    found: dict[str, Sequence[str]] = {}
    for name in names:
        value: Any = None
        with suppress(Exception):  # whatever pydicom raises on a hostile value
            value = answer.get(name) if answer is not None else None
        many = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
        found[name] = tuple(str(each).strip(" \0") for each in many if each is not None and str(each).strip(" \0"))
    return found


def _result(association: Association) -> int:
    primitive = association.acceptor.primitive
    return primitive.result if primitive is not None and primitive.result is not None else 0
