# SPDX-License-Identifier: Apache-2.0
"""What a SuperLink's, a proxy's or a stranger's answer means to the mailbox; where it connects to, and whom it believes."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from client.mailbox import flower, settings
from client.mailbox.flower import Link, LinkDown, NotAccepted, NotKnown, RunOver
from client.mailbox.settings import Settings
from client.mailbox.tally import Tally
from common import transport_key
from common.errors import CertificateMissing, DataNotFound, FedwardError, InsecureLink, NodeKey, PlanError, PlanUnknownKey, PlanValue
from server.process import tls

ROOT = Path(__file__).resolve().parents[3]
Answers = Callable[[httpx.Request], httpx.Response]


def link_to(folder: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> tuple[Link, Tally]:
    """A link whose other end is a function."""
    if not (folder / "node.key").exists():
        transport_key.create(folder / "node.key", name="north")
    monkeypatch.setattr(flower, "_transport", lambda _: httpx.MockTransport(answers))
    tally = Tally(folder)
    found = Settings(folder=folder, address="127.0.0.1:9", tls=None, proxy=None, socket=folder / "s", key=folder / "node.key")
    return Link(found, tally), tally


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(401, NotKnown), (403, RunOver), (404, NotAccepted), (400, NotAccepted), (408, LinkDown), (429, LinkDown), (500, LinkDown)]
    + [(status, LinkDown) for status in (502, 503, 504, 599)],
)
def test_a_status_has_one_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, meaning: type[Exception]) -> None:
    link, _ = link_to(tmp_path, lambda _: httpx.Response(status), monkeypatch)
    with pytest.raises(meaning):
        link.pull()


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"), OSError("x")])
def test_a_link_that_breaks_is_down_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise error

    link, _ = link_to(tmp_path, broken, monkeypatch)
    with pytest.raises(LinkDown):
        link.pull()


def test_a_page_that_a_proxy_shows_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, _ = link_to(tmp_path, lambda _: httpx.Response(200, text="<html>Please log in</html>"), monkeypatch)
    with pytest.raises(LinkDown):
        link.pull()


def test_a_redirect_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://elsewhere.example/"})

    link, _ = link_to(tmp_path, elsewhere, monkeypatch)
    with pytest.raises(NotAccepted):
        link.pull()
    assert seen == ["127.0.0.1"]


def test_an_object_that_is_not_what_its_name_says_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = PullObjectResponse(object_found=True, object_available=True, object_content=b"another")
    link, _ = link_to(tmp_path, lambda _: httpx.Response(200, content=found.SerializeToString()), monkeypatch)
    with pytest.raises(LinkDown):
        link.fetch(1, "a" * 64)


def test_it_proves_who_it_is_and_says_which_flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=ActivateNodeResponse(node_id=7).SerializeToString())

    link, _ = link_to(tmp_path, answers, monkeypatch)
    link.activate()
    assert link.node == 7
    sent = base64.b64decode(seen[0].headers[FLEET_HTTP_PUBLIC_KEY_HEADER])
    assert sent == transport_key.as_pem((tmp_path / "node.pub").read_text().rsplit(" ", 1)[0])
    assert any("flwr" in name and "version" in name for name in seen[0].headers)


@pytest.mark.parametrize(("answer", "known"), [(httpx.Response(401), False), (SendNodeHeartbeatResponse(success=True), True)])
def test_a_number_from_before_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | SendNodeHeartbeatResponse, *, known: bool
) -> None:
    said = answer if isinstance(answer, httpx.Response) else httpx.Response(200, content=answer.SerializeToString())
    link, _ = link_to(tmp_path, lambda _: said, monkeypatch)
    assert link.resume(5) is known


def test_a_heartbeat_is_given_longer_than_a_long_line_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds each way: Flower's own would give each of them up."""
    seen = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, content=SendNodeHeartbeatResponse(success=True).SerializeToString())

    link, _ = link_to(tmp_path, answers, monkeypatch)
    assert link.beat()
    assert min(seen) > 20


def test_bytes_are_counted_and_those_sent_again_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = PullMessagesResponse().SerializeToString() or b""
    link, tally = link_to(tmp_path, lambda _: httpx.Response(200, content=reply), monkeypatch)
    link.node = 2**60
    link.pull()
    once = tally.counts.sent
    assert once > 0
    assert tally.counts.again == 0
    with link.again():
        link.pull()
    link.pull()
    assert (tally.counts.sent, tally.counts.again) == (3 * once, once)


def mailbox(folder: Path, text: str) -> Path:
    (folder / "mailbox.toml").write_text(text)
    return folder


PLAIN = '[superlink]\naddress = "{}"\ninsecure = true\n[site]\nsocket = "site.sock"\n'
SECURED = '[superlink]\naddress = "fl.example:443"\nroot_certificates = "ca.crt"\n[site]\nsocket = "../door/site.sock"\n'


@pytest.mark.parametrize("address", ["127.0.0.1:9", "localhost:9", "[::1]:9", "127.8.8.8:9"])
def test_without_tls_it_talks_to_this_machine(tmp_path: Path, address: str) -> None:
    assert settings.read(mailbox(tmp_path, PLAIN.format(address))).tls is None


@pytest.mark.parametrize("address", ["fl.example:443", "10.0.0.1:9", "0.0.0.0:9", "localhost.example:9", "127.0.0.1.example:9"])
def test_without_tls_it_talks_to_no_other(tmp_path: Path, address: str) -> None:
    with pytest.raises(InsecureLink, match="without TLS"):
        settings.read(mailbox(tmp_path, PLAIN.format(address)))


def test_without_tls_it_goes_through_no_proxy(tmp_path: Path) -> None:
    """An address of this machine is another machine's to answer, once a proxy is asked for it."""
    text = PLAIN.format("127.0.0.1:9").replace("insecure = true", 'insecure = true\nproxy = "http://proxy.example:3128"')
    with pytest.raises(InsecureLink, match="through a proxy"):
        settings.read(mailbox(tmp_path, text))


def test_the_coordinators_own_authority_is_the_only_one(tmp_path: Path) -> None:
    place = tls.Place(ca=tmp_path / "ca.crt", certificate=tmp_path / "server.crt", key=tmp_path / "server.key")
    tls.create(place, names=["fl.example"], now=tls.now())
    found = settings.read(mailbox(tmp_path, SECURED))
    assert found.tls is not None
    assert [each["subject"][0][0][0] for each in found.tls.get_ca_certs()] == ["commonName"]
    assert found.tls.check_hostname
    assert found.tls.minimum_version.name == "TLSv1_3"
    assert found.socket == tmp_path / "../door/site.sock"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SECURED, CertificateMissing),
        (SECURED.replace('root_certificates = "ca.crt"\n', ""), CertificateMissing),
        (SECURED.replace("fl.example:443", "https://fl.example"), PlanValue),
        (SECURED.replace("fl.example:443", "fl.example:0"), PlanValue),
        (SECURED.replace("fl.example:443", "fl.example"), PlanValue),
        (SECURED + 'trust = "everybody"\n', PlanUnknownKey),
        ("[superlink", PlanError),
        ("[site]\nsocket = 'a'\n", PlanError),
    ],
)
def test_a_mailbox_that_says_nonsense_does_not_start(tmp_path: Path, text: str, error: type[FedwardError]) -> None:
    with pytest.raises(error):
        settings.read(mailbox(tmp_path, text))


def test_a_folder_that_is_no_mailbox_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"mailbox\.toml"):
        settings.read(tmp_path)


@pytest.mark.parametrize("key", [None, b"nonsense", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_named(tmp_path: Path, key: bytes | None) -> None:
    if key is not None:
        (tmp_path / "node.key").write_bytes(key)
    with pytest.raises(NodeKey, match=r"node\.key"):
        Link(settings.read(mailbox(tmp_path, PLAIN.format("localhost:9"))), Tally(tmp_path))


def test_a_key_of_another_kind_is_named(tmp_path: Path) -> None:
    """Ed25519, which OpenSSH makes by default and Flower does not take."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    (tmp_path / "node.key").write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
    with pytest.raises(NodeKey):
        Link(settings.read(mailbox(tmp_path, PLAIN.format("localhost:9"))), Tally(tmp_path))


PROBE = """
import sys
import client.mailbox.__main__
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore import telemetry
trains = [name for name in ("torch", "opacus", "pydicom", "client.site", "client.process.handler", "client.ledger") if name in sys.modules]
print(trains, telemetry.FLWR_TELEMETRY_ENABLED, FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)
"""


def test_what_talks_to_the_network_has_never_loaded_what_trains() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLWR")}
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, env=clean, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["[]", "0", str(1 << 20)]


def test_it_has_no_way_to_fetch_a_bundle_or_to_run_one() -> None:
    """In the words of its own source: nothing there names a bundle's call, starts a program or makes code of bytes."""
    words = ("GetFab", "get_fab", "fab_", "subprocess", "exec(", "eval(", "importlib", "__import__", "pickle", "marshal")
    for path in (ROOT / "client" / "mailbox").glob("*.py"):
        found = [word for word in words if word in path.read_text()]
        assert not found, (path.name, found)
