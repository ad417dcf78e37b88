# SPDX-License-Identifier: Apache-2.0
"""What a site does with a message: find the answer, or refuse with a code.

There is one handler, and three doors lead to it: a Flower ClientApp (`client.app`: simulations, Flower's Ray runtime, a stock SuperNode),
and the site process (`client.process.serve`), which is what hospitals run. A door knows how messages come; what may be answered is decided
here and in `client.site`.

Whatever goes wrong becomes a refusal with a code: no text, no traceback, no path leaves. Beside the code stands one thing, where peers are
at fault: the site's signed complaint about them, names of the roster and digests. The words go to `error.log` in
the site's own folder, or to nobody if that cannot be written. An exception that is not ours is written down without its text
(`common.backtrace`).

`DEPLOYED` is all that a hospital answers. `SIMULATED` adds what only a simulated site may be asked, and `client.site` refuses it to any
site whose own file does not say that it is one.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.home import read_site_file
from client.membership.news import receive
from client.membership.pause import check_not_paused
from client.membership.rosters import check_in_force
from client.site import Site
from common import wire
from common.backtrace import keep_whole, outline
from common.durable import OWNER_ONLY
from common.errors import FedwardError, MessageFormat, TrainFailed
from common.wire import Content

ERROR_FILE: Final = "error.log"
LARGEST_ERRORS: Final = 1 << 20
"""Bytes; then a new file is begun and the one before is kept as error.log.before, so that no sender of nonsense fills the disk."""
NOBODY: Final = ""

log = logging.getLogger("fedward.site")


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a message is answered: the site's home, and the site itself, opened by whoever needs it."""

    home: Path
    open_site: Callable[[], Site]

    def site(self) -> Site:
        """Raises: SitePaused, SiteLeft, RosterPending, and whatever is wrong with the home or the approved plan."""
        check_not_paused(self.home)
        check_in_force(self.home)
        return self.open_site()


Answer = Callable[[Desk, Content], Content]


def hello(desk: Desk, content: Content) -> Content:
    """The site's name, if it approved that plan."""
    return wire.encode_hello_reply(desk.site().hello(wire.decode_hello(content)))


def secure(desk: Desk, content: Content) -> Content:
    """One step of secure aggregation."""
    site = desk.site()
    return wire.encode_secure_reply(site.secure(wire.decode_secure_request(content, site.layout.size)))


def news(desk: Desk, content: Content) -> Content:
    """A newer roster, a plan to read. Also where no plan is approved yet, and while the site is paused."""
    return wire.encode_news_reply(receive(desk.home, wire.decode_news(content)))


def ideal(desk: Desk, content: Content) -> Content:
    """In simulations: a quantised delta."""
    site = desk.site()
    return wire.encode_ideal_reply(site.train_ideal(wire.decode_train_request(content, site.layout)))


def plain(desk: Desk, content: Content) -> Content:
    """In simulations: a released delta."""
    site = desk.site()
    return wire.encode_train_reply(site.train(wire.decode_train_request(content, site.layout)))


DEPLOYED: Final[Mapping[str, Answer]] = {wire.HELLO: hello, wire.NEWS: news, **dict.fromkeys(wire.SECURE.values(), secure)}
SIMULATED: Final[Mapping[str, Answer]] = {**DEPLOYED, wire.TRAIN_IDEAL: ideal, wire.TRAIN: plain}


def answered(desk: Desk, message_type: str, content: Content, *, answers: Mapping[str, Answer]) -> Content:
    """Raises: whatever is in the way of an answer."""
    return answer_to(message_type, answers)(desk, content)


def answer_to(message_type: str, answers: Mapping[str, Answer]) -> Answer:
    """Who answers such messages. Raises: MessageFormat."""
    if message_type not in answers:
        raise MessageFormat("a message is of a type that this site does not answer.", fix="Nothing was read of it.")
    return answers[message_type]


def guarded(reply: Callable[[], Content], home: Callable[[], Path | None]) -> Content:
    """What `reply` gives, or the refusal that its failure comes to. `home` gives None where nobody knows which site this is."""
    try:
        return reply()
    except FedwardError as error:
        return _refuse(home(), error.code, str(error), error.complaint)
    except Exception as error:  # whatever broke, nothing of it may travel
        keep_whole(error)
        return _refuse(home(), TrainFailed.code, outline(error))


def refusal_from(home: Path | None, code: str, complaint: bytes = b"") -> Content:
    """A refusal in the site's name, as its own file says it; in nobody's, if that cannot be read."""
    return wire.encode_refusal(wire.Refusal(site=_name_at(home), code=code, complaint=complaint))


def _refuse(home: Path | None, code: str, words: str, complaint: bytes = b"") -> Content:
    if home is None:
        log.error("%s: this node does not know which site it is", code)
    else:
        _write_down(home, f"{code} {words}")
    return refusal_from(home, code, complaint)


def _write_down(home: Path, line: str) -> None:
    """One line for one failure: its words may quote a stranger, who would write lines of his own, or to the terminal that shows them."""
    path, line = home / ERROR_FILE, "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    with suppress(OSError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY), "a") as file:
        file.write(f"{line}\n")
        if file.tell() > LARGEST_ERRORS:
            path.replace(path.with_name(f"{ERROR_FILE}.before"))


def _name_at(home: Path | None) -> str:
    """A folder's name is this machine's business, so a site that cannot read its own is nobody."""
    try:
        return read_site_file(home).site.name if home else NOBODY
    except (FedwardError, OSError, ValueError):
        return NOBODY
