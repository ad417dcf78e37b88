# SPDX-License-Identifier: Apache-2.0
"""The process that touches hostile bytes: one file in, one sample and a line of JSON out.

Parsers and decoders are C and Python code fed by whoever sent the CD-ROM. They run here, in a process that was started afresh, knows the
root folder, the plan's input and one output file, and holds neither the patient secret nor a key. Limits come from the kernel, which a
wedged decoder cannot argue with: address space (RLIMIT_AS), and a timer of processor time per file whose signal is left at its default,
death. Processor time and not the clock's, so that a busy machine rejects the same files as an idle one.
What it sees as identity goes up the pipe in plain text and is hashed by the parent at once.

The sample is written in place with pwrite, at the slot that the task names; only the outcome travels through the pipe. Messages are lines
of JSON: a `Brief`, answered by `"ready"`; then tasks `[slot, path]`, each answered by `[slot, reason]` or
`[slot, null, issuer, patient_id, sop_instance_uid]`.

Not protected: the network. Run the site without one (deploy/).
"""

import dataclasses
import errno
import json
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from client.imaging import dicom, sample, slots
from client.imaging.dicom import Identity
from client.imaging.listing import read_beneath
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan.spec import InputSpec, Window

Kind = Literal["dicom", "picture"]
READY = "ready"
TIME_IS_UP = signal.SIGPROF  # what ITIMER_PROF sends
NOBODY = Identity(issuer="", patient_id="", sop_instance_uid="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost."""

    memory_bytes: int = 2 << 30
    cpu_seconds: float = 20.0
    file_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All that a worker is told. `wanted`: the SOPInstanceUIDs that have a label, or None where that is known beforehand."""

    kind: Kind
    input: InputSpec
    limits: Limits
    wanted: frozenset[str] | None = field(repr=False)

    def to_json(self) -> str:
        wanted = None if self.wanted is None else sorted(self.wanted)
        return json.dumps({**dataclasses.asdict(self), "wanted": wanted})


def brief_from_json(text: str) -> Brief:
    """The other end of `Brief.to_json`."""
    fields = json.loads(text)
    window = fields["input"]["window"]
    return Brief(
        kind=fields["kind"],
        input=InputSpec(**{**fields["input"], "window": None if window is None else Window(**window)}),
        limits=Limits(**fields["limits"]),
        wanted=None if fields["wanted"] is None else frozenset(fields["wanted"]),
    )


def read_dicom(content: bytes, brief: Brief) -> tuple[Identity, Sample]:
    """DICOM bytes to whose it is and the plan's input; a file without a label is given up before its pixels are decoded."""
    dataset = dicom.parse(content)
    identity = dicom.identify(dataset, modality=brief.input.modality)
    if brief.wanted is not None and identity.sop_instance_uid not in brief.wanted:
        raise Rejected(Reason.NO_LABEL)
    return identity, sample.of_instance(dicom.read(dataset, identity), brief.input)


def read_picture(content: bytes, brief: Brief) -> tuple[Identity, Sample]:
    """PNG or JPEG bytes to the plan's input; whose it is stands in the index, not in the file."""
    return NOBODY, sample.of_picture(content, brief.input)


READERS: dict[Kind, Callable[[bytes, Brief], tuple[Identity, Sample]]] = {"dicom": read_dicom, "picture": read_picture}


def serve(tasks: IO[str], results: IO[str], root: int, output: int) -> None:
    """Answer tasks until there are no more. `root` is the open folder, `output` the open file of samples."""
    brief = brief_from_json(tasks.readline())
    resource.setrlimit(resource.RLIMIT_AS, (brief.limits.memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(TIME_IS_UP, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    logging.disable()
    _say(results, READY)
    for line in tasks:
        slot, path = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, brief.limits.cpu_seconds)
        answer = _answer(brief, root, output, slot, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(results, answer)


def _say(results: IO[str], message: Any) -> None:
    results.write(json.dumps(message) + "\n")
    results.flush()


def _answer(brief: Brief, root: int, output: int, slot: int, path: str) -> list[Any]:
    try:
        content = read_beneath(root, path, largest=brief.limits.file_bytes)
        identity, pixels = READERS[brief.kind](content, brief)
    except Rejected as rejected:
        return [slot, rejected.reason]
    except MemoryError:
        return [slot, Reason.TOO_LARGE]
    except Exception:  # nothing a file holds may end the run, or be printed
        return [slot, Reason.UNDECODABLE]
    try:
        slots.write(output, slot, pixels)
    except OSError as error:
        return [slot, "disk", errno.errorcode.get(error.errno or 0, "")]
    return [slot, None, identity.issuer, identity.patient_id, identity.sop_instance_uid]


def main() -> None:
    """Descriptors come as arguments: tasks, results, root folder, output file."""
    tasks, results, root, output = map(int, sys.argv[-4:])
    with os.fdopen(tasks, "r", encoding="ascii") as incoming, os.fdopen(results, "w", encoding="ascii") as outgoing:
        serve(incoming, outgoing, root, output)
