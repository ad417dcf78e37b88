# SPDX-License-Identifier: Apache-2.0
"""The run's log: whole lines of closed fields, whoever writes, and only whole lines to whoever reads."""

import json
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from common.update import Layout, Weights
from server.absences import Absence
from server.journal import CommittedRound
from server.process.logbook import Line, Logbook, Reader, RoundLines, in_words


def write_many(path: str, who: str) -> None:
    book = Logbook(Path(path))
    for number in range(200):
        book.write(Line(event="site_heard", site=who * 20, round=number))


def test_two_processes_that_write_at_once_tear_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    writers = [get_context("fork").Process(target=write_many, args=(str(path), who)) for who in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 400
    assert [line["round"] for line in lines if line["site"][0] == "b"] == list(range(200))


def test_a_reader_gets_what_came_since_and_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Logbook(path).write(Line(event="started"))
    reader = Reader(path)
    assert list(reader.news()) == []
    with path.open("a") as file:
        file.write('{"time": "2026-03-01T09:12:04.123Z", "event": "do')
        file.flush()
        assert list(reader.news()) == []
        file.write('ne"}\n')
    assert [json.loads(line)["event"] for line in reader.news()] == ["done"]
    assert list(Reader(tmp_path / "none").news()) == []


def test_a_line_has_only_numbers_and_names_from_closed_lists() -> None:
    """No field is for text that somebody else chose; a new one has to be argued for here."""
    kinds = {"event", "round", "rounds", "phase", "site", "code", "asked", "answered", "sites", "missing", "bytes_up", "seconds"}
    assert {field.name for field in fields(Line)} == kinds | {"process", "pid", "run", "restarts"}


def test_words_for_people_begin_with_the_time_and_the_round() -> None:
    line = '{"time": "2026-03-01T09:12:04.123Z", "event": "phase_closed", "round": 3, "phase": "MASK", "answered": 7, "asked": 8}'
    assert in_words(line) == "09:12:04  round 3: phase closed  phase MASK  answered 7  asked 8"


def test_a_committed_round_tells_who_is_not_in_it_and_why(tmp_path: Path) -> None:
    done = CommittedRound(
        round=2,
        attempt=0,
        sites=("east", "north"),
        missing=(Absence(site="west", why="E_SILENT"),),
        fallen=(Absence(site="east", why="E_SITE_FAILED"),),
        checkpoint="c",
        sha256="0",
        seconds=4.56,
        update_norm=1.0,
    )
    layout = Layout(names=("w",), shapes=((1,),))
    RoundLines(Logbook(tmp_path / "log"), 5).round_committed(done, Weights(layout=layout, values=np.zeros(1, dtype=np.float32)))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["event"], line.get("site"), line.get("code"), line.get("seconds")) for line in lines] == [
        ("round_committed", None, None, 4.6),
        ("site_missing", "west", "E_SILENT", None),
        ("site_fallen", "east", "E_SITE_FAILED", None),
    ]


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    Logbook(tmp_path / "no folder" / "log").write(Line(event="started"))
