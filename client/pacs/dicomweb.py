# SPDX-License-Identifier: Apache-2.0
"""DICOMweb (PS3.18): a listing by QIDO-RS, study by study and series by series; each instance by one WADO-RS request.

One request an instance is what makes an import resumable and its account exact. Instances are asked for as they are stored
(`transfer-syntax=*`), so that nothing is decoded and encoded again on the way. Addresses are made here from the archive's own address and
UIDs; an address that an answer names is never followed, nor is a redirection.

httpx, and not dicomweb-client: that reads an answer of any size into memory before looking at it, and gives back what pydicom made of it
instead of the bytes that came. Here every answer has a largest size and a slowest pace.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
from pydicom.tag import Tag

from client.pacs.archive import AT_MOST, Gaps
from client.pacs.failure import Failed, Reason
from client.pacs.landing import Arriving, Landing
from client.pacs.line import Line, transport
from client.pacs.link import Trust
from client.pacs.multipart import DICOM, RELATED, OnePart, content_type
from client.pacs.pace import Patience
from client.pacs.query import KEYS, Level, Query
from client.pacs.retry import Retry
from client.pacs.wanted import Wanted, is_uid
from common.errors import PacsAnswer, PacsRefused

_PAGE: Final = 500
_LARGEST_PAGE: Final = 64 << 20
_TAIL: Final = 64 << 10
_SAFE: Final = "*?,:/@!$'()"
_LONGEST_WAIT_S: Final = 120.0
_ACCEPT: Final = f'{RELATED}; type="{DICOM}"; transfer-syntax=*'
_JSON: Final = "application/dicom+json"
_TAGS: Final = {key: Tag(key).json_key for key in KEYS}
_UID_OF: Final = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID", Level.IMAGE: "SOPInstanceUID"}
_BY_STATUS: Final = {
    403: Reason.FORBIDDEN, 404: Reason.NOT_FOUND, 410: Reason.NOT_FOUND, 204: Reason.NOT_FOUND,
    406: Reason.NOT_OFFERED, 415: Reason.NOT_OFFERED, 408: Reason.BUSY, 429: Reason.BUSY, 502: Reason.BUSY, 503: Reason.BUSY,
    504: Reason.BUSY,
}  # fmt: skip

Answer = Mapping[str, Sequence[str]]


class DicomWeb:
    """An archive's DICOMweb service at `url`, for example https://pacs.hospital.example/dicom-web."""

    batch = 1

    def __init__(self, url: str, trust: Trust, *, authorization: str | None, timeout_s: float, retry: Retry) -> None:
        self._base = url.rstrip("/")
        self._timeout_s, self._retry = timeout_s, retry
        self.gaps = Gaps()
        headers = {"accept-encoding": "identity"}  # what is compressed could be small here and endless when unpacked
        if authorization is not None:
            headers["authorization"] = authorization
        self._line = Line(timeout_s)
        self._client = httpx.Client(
            transport=transport(self._line, trust.as_client() if urlsplit(url).scheme == "https" else None),
            headers=headers,
            timeout=httpx.Timeout(timeout_s),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def find(self, query: Query) -> Iterator[Wanted]:
        """Raises: Failed where asking again may help; PacsRefused, PacsAnswer."""
        for study in self._list("/studies", query, Level.STUDY):
            study_uid = study["StudyInstanceUID"][0]
            for series in self._list(f"/studies/{study_uid}/series", query, Level.SERIES):
                series_uid = series["SeriesInstanceUID"][0]
                for found in self._list(f"/studies/{study_uid}/series/{series_uid}/instances", query, Level.IMAGE):
                    sop_class = next(iter(found.get("SOPClassUID", ())), "")
                    yield Wanted(
                        study=study_uid,
                        series=series_uid,
                        instance=found["SOPInstanceUID"][0],
                        sop_class=sop_class if is_uid(sop_class) else "",
                    )

    def fetch(self, wanted: Sequence[Wanted], landing: Landing) -> Mapping[Wanted, Failed]:
        failed = {}
        for each in wanted:
            try:
                self._fetch(each, landing)
            except Failed as failure:
                failed[each] = failure
        return failed

    def _list(self, path: str, query: Query, level: Level) -> Iterator[Answer]:
        """All answers of one level. Pages are asked for until one brings nothing new: some are cut shorter than asked for."""
        keys, name = query.at(level), _UID_OF[level]
        fields = [key for key in keys if key in query.keys]
        seen: set[str] = set()
        while True:
            parameters = {**keys, "includefield": ",".join([*fields, name]), "limit": str(_PAGE), "offset": str(len(seen))}
            try:
                page = self._retry(partial(self._page, path, parameters))
            except Failed as failure:
                if level is Level.STUDY or failure.reason is not Reason.PACS_ERROR:
                    raise
                self.gaps.unlisted += 1  # one study that the archive cannot read is no reason to do without the others
                return
            fresh = [each for each in page if each[name][0] not in seen]
            seen.update(each[name][0] for each in page)
            if len(seen) > AT_MOST:
                raise PacsAnswer(
                    f"the archive lists more than {AT_MOST} answers to one question.",
                    fix="Narrow the --query, or ask its vendor.",
                )
            for each in fresh:
                if query.allows(each, level):
                    yield each
                else:
                    self.gaps.contradicting += 1
            if not fresh:
                return

    def _page(self, path: str, parameters: Mapping[str, str]) -> list[Answer]:
        with self._answer(path, _JSON, parameters, largest=_LARGEST_PAGE) as response:
            if response.status_code == 204:
                return []
            _check_listing(response, self._base)
            content, patience = bytearray(), Patience(self._timeout_s)
            for piece in response.iter_raw():
                content += piece
                patience.came(len(piece))
                if len(content) > _LARGEST_PAGE:
                    raise PacsAnswer("the archive's listing does not end.", fix="Is this the address of its DICOMweb service?")
        return _parse(bytes(content), parameters)

    def _fetch(self, wanted: Wanted, landing: Landing) -> None:
        landing.check_room()
        path = f"/studies/{wanted.study}/series/{wanted.series}/instances/{wanted.instance}"
        with self._answer(path, _ACCEPT, {}, largest=landing.largest) as response:
            _check_instance(response)
            claimed = response.headers.get("content-length", "")
            if claimed.isdecimal() and int(claimed) > landing.largest + _TAIL:
                raise Failed(Reason.TOO_LARGE)
            with landing.arriving(wanted) as file:
                self._receive(response, file)
                file.land()

    def _receive(self, response: httpx.Response, file: Arriving) -> None:
        kind, boundary = content_type(response.headers.get("content-type", ""))
        part = OnePart(boundary, file.write) if kind == RELATED else None
        if part is None and kind != DICOM:
            raise Failed(Reason.MALFORMED)
        patience, tail = Patience(self._timeout_s), 0
        for piece in response.iter_raw():
            patience.came(len(piece))
            if part is None:
                file.write(piece)
                continue
            tail += len(piece) if part.is_over else 0
            part.feed(piece)
            if tail > _TAIL:  # the part is whole; what follows for ever is not waited for
                break
        if part is not None and not part.is_over:
            raise Failed(Reason.BROKEN_OFF)

    @contextmanager
    def _answer(self, path: str, accept: str, parameters: Mapping[str, str], *, largest: int) -> Iterator[httpx.Response]:
        self._line.asked()
        try:
            with self._client.stream("GET", self._base + path + _encoded(parameters), headers={"accept": accept}) as response:
                self._line.answered(largest)
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise Failed(Reason.MALFORMED)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Failed(Reason.AWAY) from error
        except httpx.TimeoutException as error:
            raise Failed(Reason.SILENT) from error
        except httpx.HTTPError as error:
            raise Failed(Reason.BROKEN_OFF) from error


def _encoded(parameters: Mapping[str, str]) -> str:
    """No more is percent-encoded than has to be (RFC 3986 3.4): Orthanc 1.10 takes `%2A` for three characters, not for a wildcard."""
    return "?" + "&".join(f"{key}={quote(value, safe=_SAFE)}" for key, value in parameters.items()) if parameters else ""


def _check_listing(response: httpx.Response, base: str) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in (401, 403):
        raise PacsRefused(f"'{base}' answered {status}: this user may not search.", fix="Look at --auth-file, or ask the archive's people.")
    if status >= 500 or status in (408, 429):
        raise Failed(_BY_STATUS.get(status, Reason.PACS_ERROR), wait_s=_asked_to_wait(response))
    raise PacsAnswer(f"'{base}' answered {status} to a search, expected 200.", fix="Is this the address of its DICOMweb service (QIDO-RS)?")


def _check_instance(response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if 300 <= status < 400:
        raise Failed(Reason.REDIRECTED)
    if status == 401:
        raise PacsRefused(
            "the archive does not know this user (any more): 401 to a request.", fix="Look at --auth-file, then run it again."
        )
    reason = _BY_STATUS.get(status) or (Reason.PACS_ERROR if status >= 500 else Reason.REFUSED)
    raise Failed(reason, wait_s=_asked_to_wait(response))


def _asked_to_wait(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return min(float(seconds), _LONGEST_WAIT_S) if seconds.isdecimal() and len(seconds) < 8 else 0.0


def _parse(content: bytes, parameters: Mapping[str, str]) -> list[Answer]:
    """DICOM JSON (PS3.18 F) as values by keyword; an answer without its own UID is no answer."""
    name = parameters["includefield"].rpartition(",")[2]
    try:
        found = json.loads(content) if content.strip() else []
        answers: list[Answer] = [{key: _values(each.get(tag)) for key, tag in _TAGS.items()} for each in found]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise PacsAnswer("the archive's listing is no DICOM JSON.", fix="Is this the address of its DICOMweb service (QIDO-RS)?") from None
    if not all(len(each[name]) == 1 and is_uid(each[name][0]) for each in answers):
        raise PacsAnswer(f"the archive lists something whose {name} is no UID.", fix="It is not asked for anything more. Tell its vendor.")
    return answers


def _values(element: Any) -> tuple[str, ...]:
    if element is None:
        return ()
    values = element.get("Value", [])  # an attribute without a value has none (PS3.18 F.2.5)
    if not isinstance(values, list):
        raise TypeError
    return tuple(str(value).strip(" \0") for value in values if isinstance(value, str | int | float))
