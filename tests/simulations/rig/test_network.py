# SPDX-License-Identifier: Apache-2.0
"""The rig's namespaces hold: a hospital reaches one address and port, nobody reaches it, and its site process has nothing to reach with."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.rig.commands import tool
from simulations.rig.network import Namespaces, missing
from simulations.rig.places import Hospital

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no namespaces here: {missing()}")

LISTEN = """
import socket, sys
listeners = []
for port in map(int, sys.argv[2:]):
    listener = socket.create_server((sys.argv[1], port))
    listeners.append(listener)
print("listening", flush=True)
while True:
    connection, _ = listeners[0].accept()
    connection.sendall(b"here")
    connection.close()
"""
CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as connection:
        print(connection.recv(4).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def network(open_folder: Path) -> Iterator[Namespaces]:
    made = Namespaces("test")
    try:
        made.up([hospital_in(open_folder)])
        yield made
    finally:
        made.down()


def hospital_in(folder: Path) -> Hospital:
    hospital = Hospital(number=1, folder=folder / "h1")
    hospital.images.mkdir(parents=True, exist_ok=True)
    (hospital.images / "picture").write_text("made")
    return hospital


def said(prefix: list[str], program: str, *arguments: object) -> str:
    command = [*prefix, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def listener(prefix: list[str], address: str, *ports: int) -> "subprocess.Popen[str]":
    command = [*prefix, sys.executable, "-c", LISTEN, address, *map(str, ports)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "listening"
    return process


def counters(network: Namespaces, hospital: Hospital) -> dict[str, int]:
    rules = json.loads(tool(["ip", "netns", "exec", network.namespace(hospital), "nft", "-j", "list", "counters"]))["nftables"]
    return {rule["counter"]["name"]: rule["counter"]["packets"] for rule in rules if "counter" in rule}


def test_a_hospital_reaches_its_line_and_nothing_else(network: Namespaces, open_folder: Path) -> None:
    hospital = hospital_in(open_folder)
    address, port = network.line(hospital)
    with listener(network.of_wan(), address, port, port + 1) as server:
        try:
            assert said(network.of_mailbox(hospital), CONNECT, address, port) == "here"
            before = counters(network, hospital)
            assert before["refused_out"] == 0
            assert before["let_out"] > 0
            assert said(network.of_mailbox(hospital), CONNECT, address, port + 1) == "TimeoutError"
            assert said(network.of_mailbox(hospital), CONNECT, *network.front()) == "TimeoutError"
            assert counters(network, hospital)["refused_out"] >= 2
        finally:
            server.kill()


def test_a_stock_supernode_reaches_itself_over_loopback_and_a_mailbox_has_none(network: Namespaces, open_folder: Path) -> None:
    stock = replace(hospital_in(open_folder), number=2, folder=open_folder / "h2", stock=True)
    stock.folder.mkdir()
    network.add(stock)
    inside, port = network.of_mailbox(stock), network.runtime(stock)
    with listener(inside, "127.0.0.1", port) as server:
        try:
            assert said(inside, CONNECT, "127.0.0.1", port) == "here"
            assert said(inside, CONNECT, *network.front()) == "TimeoutError"
            assert said(network.of_wan(), CONNECT, network.address(stock), port) == "TimeoutError"
            assert said(network.of_mailbox(hospital_in(open_folder)), CONNECT, "127.0.0.1", port) in ("OSError", "TimeoutError")
        finally:
            server.kill()


def test_nobody_reaches_a_hospital_even_if_it_listens(network: Namespaces, open_folder: Path) -> None:
    hospital = hospital_in(open_folder)
    inside = ["ip", "netns", "exec", network.namespace(hospital)]
    with listener(inside, network.address(hospital), 9999) as server:
        try:
            assert said(network.of_wan(), CONNECT, network.address(hospital), 9999) == "TimeoutError"
            assert counters(network, hospital)["refused_in"] >= 1
        finally:
            server.kill()


def test_a_site_process_has_no_network_no_rights_and_images_that_it_cannot_write(network: Namespaces, open_folder: Path) -> None:
    hospital = hospital_in(open_folder)
    site = network.of_site(hospital)
    assert [line.split(":")[0].strip() for line in said(site, "print(open('/proc/net/dev').read())").splitlines()[2:]] == ["lo"]
    assert said(site, CONNECT, *network.line(hospital)) == "OSError"
    status = said(site, "print(open('/proc/self/status').read())")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(hospital.site_user)] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    hospital.images.chmod(0o777)  # so that it is the mount that refuses, and not the owner
    write = "import sys, pathlib\ntry: pathlib.Path(sys.argv[1]).write_text('x')\nexcept OSError as error: print(error.strerror)"
    assert said(site, write, hospital.images / "more") == "Read-only file system"
    assert said(site, "import sys, pathlib; print(pathlib.Path(sys.argv[1]).read_text())", hospital.images / "picture") == "made"


def test_nothing_of_it_is_the_machines_own_and_nothing_is_left(open_folder: Path) -> None:
    before = tool(["ip", "-o", "link"])
    made = Namespaces("left")
    made.up([hospital_in(open_folder)])
    try:
        assert tool(["ip", "-o", "link"]) == before
    finally:
        made.down()
    time.sleep(0.1)
    assert "fwleft-" not in tool(["ip", "netns", "list"])
    assert tool(["ip", "-o", "link"]) == before
