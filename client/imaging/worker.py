# SPDX-License-Identifier: Apache-2.0
"""The process that touches hostile bytes: one file in, one sample and a line of JSON out.

Parsers and decoders are C and Python code fed by whoever sent the CD-ROM. They run here, in a process that was started afresh, knows the
root folder, the plan's input and one output file, and holds neither the patient secret nor a key. Limits come from the kernel, which a
wedged decoder cannot argue with: address space (RLIMIT_AS), and a timer of processor time per file whose signal is left at its default,
death. Processor time and not the clock's, so that a busy machine rejects the same files as an idle one.
What it sees as identity goes up the pipe in plain text and is hashed by the parent at once.

The sample is written in place with pwrite, at the slot that the task names; only the outcome travels through the pipe. Messages are lines
of JSON: a `Brief`, answered by `"ready"`; then tasks `[slot, path, room]`, each answered by `[slot, reason]`, by
`[slot, null, issuer, patient_id, sop_instance_uid, series_uid, places, skipped, grid]` with a place for each sample that was written, from
the slot on, or by `[slot, null, told]` where no sample is asked for but what the file tells.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal, NamedTuple

from pydantic import TypeAdapter
from pydicom.dataset import Dataset

from client.imaging import dicom, nifti, pictures, sample, slots
from client.imaging.dicom import Identity
from client.imaging.listing import read_beneath
from client.imaging.pictures import Grid, Tap
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan import InputSpec

Kind = Literal["dicom", "picture", "mask", "header", "fhir", "drawings", "inventory", "picture inventory"]
READY = "ready"
TIME_IS_UP = signal.SIGPROF  # what ITIMER_PROF sends
NOBODY = Identity(issuer="", patient_id="", sop_instance_uid="")
SKIPPED = (Reason.CONSTANT, Reason.TISSUE)  # one frame of many that shows nothing costs itself, and is counted

Placed = tuple[float | None, Sample]  # how far along its series an image lies, and the image


class Taken(NamedTuple):
    """Whose a file is, its images one after the other, and, of pictures and volumes, the grid that they lie on."""

    identity: Identity
    placed: Iterator[Placed]
    grid: Grid = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost."""

    memory_bytes: int = 2 << 30
    cpu_seconds: float = 20.0
    file_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All that a worker is told. `wanted`: the SOPInstanceUIDs that have a label, or None where that is known beforehand.

    counting: only how many images each file will give is asked for. accept_burned_in: the site's policy on annotated pictures. drawn_on:
    masks or boxes belong to these pictures.
    """

    kind: Kind
    input: InputSpec
    limits: Limits
    wanted: frozenset[str] | None = field(repr=False)
    counting: bool = False
    accept_burned_in: bool = False
    drawn_on: bool = False

    def to_json(self) -> str:
        wanted = None if self.wanted is None else sorted(self.wanted)
        return json.dumps({**dataclasses.asdict(self), "wanted": wanted})


_INPUT: TypeAdapter[InputSpec] = TypeAdapter(InputSpec)


def brief_from_json(text: str) -> Brief:
    """The other end of `Brief.to_json`."""
    fields = json.loads(text)
    return Brief(
        **{
            **fields,
            "input": _INPUT.validate_json(json.dumps(fields["input"])),
            "limits": Limits(**fields["limits"]),
            "wanted": None if fields["wanted"] is None else frozenset(fields["wanted"]),
        }
    )


def read_dicom(content: bytes, brief: Brief) -> Taken:
    """DICOM bytes to whose it is and the plan's input; a file without a label is given up before its pixels are decoded."""
    return read_dataset(dicom.header(content), brief)


def read_dataset(dataset: Dataset, brief: Brief, *, tap: Tap | None = None) -> Taken:
    """The same of a header that is parsed; `tap` is shown what is decoded on the way."""
    identity = _admitted(dataset, brief)
    return Taken(identity, _placed(dicom.read_frames(dataset, identity, brief.input.frames, tap=tap), brief.input))


def _admitted(dataset: Dataset, brief: Brief) -> Identity:
    dicom.require_image(dataset)
    identity = dicom.identify(dataset, modality=brief.input.modality)
    if brief.wanted is not None and identity.sop_instance_uid not in brief.wanted:
        raise Rejected(Reason.NO_LABEL)
    dicom.admit(dataset, brief.input, accept_burned_in=brief.accept_burned_in)
    return identity


def _placed(instances: Iterator[dicom.Instance], spec: InputSpec) -> Iterator[Placed]:
    """Samples of the instances; of many, those that show nothing are left out. Raises: Rejected, if none is left."""
    kept, nothing = 0, None
    for instance in instances:
        try:
            fitted = sample.of_instance(instance, spec)
        except Rejected as rejected:
            if spec.frames != "each" or rejected.reason not in SKIPPED:
                raise
            nothing = rejected.reason
            continue
        kept += 1
        place = instance.geometry.place_mm
        yield (float(instance.frame) if place is None else round(place, 3)), fitted
    if nothing is not None and not kept:
        raise Rejected(nothing)


def read_picture(content: bytes, brief: Brief) -> Taken:
    """PNG, JPEG or NIfTI bytes to the plan's input; whose it is stands in the index, not in the file."""
    if nifti.is_nifti(content):
        return read_volume(nifti.open_volume(content), brief)
    return read_flat(content, brief)


def read_volume(volume: nifti.Volume, brief: Brief, *, tap: Tap | None = None) -> Taken:
    """A volume's slices; `tap` is shown what it stores."""
    return Taken(NOBODY, nifti.samples(volume, brief.input, tap=tap), volume.grid)


def read_flat(content: bytes, brief: Brief, *, tap: Tap | None = None) -> Taken:
    """The one image of a PNG or JPEG; `tap` is shown what it stores."""
    grid, fitted = pictures.read(content, brief.input, drawn_on=brief.drawn_on, tap=tap)
    return Taken(NOBODY, iter([(None, fitted)]), grid)


def read_mask(content: bytes, brief: Brief) -> Taken:
    """A PNG whose values are classes, or a NIfTI volume of them, in the plan's size."""
    if nifti.is_nifti(content):
        volume = nifti.open_volume(content)
        return Taken(NOBODY, nifti.masks(volume, brief.input), volume.grid)
    grid, fitted = pictures.read_mask(content, brief.input)
    return Taken(NOBODY, iter([(None, fitted)]), grid)


READERS: dict[Kind, Callable[[bytes, Brief], Taken]] = {"dicom": read_dicom, "picture": read_picture, "mask": read_mask}


def tell_header(content: bytes, _: Brief) -> Any:
    """What a DICOM file tells without its pixels."""
    from client.imaging.labels import told  # highdicom takes half a second to load, for which no reader of images should wait

    return told.tell(content)


def tell_drawings(content: bytes, _: Brief) -> Any:
    """The masks of a segmentation."""
    from client.imaging.labels import segmentation

    return segmentation.draw(content)


def tell_diagnoses(content: bytes, _: Brief) -> Any:
    """What a FHIR bundle says of patients."""
    from client.imaging.labels import fhir

    return fhir.read(content)


def tell_all(content: bytes, brief: Brief) -> Any:
    """What a file is, whether the plan would use it, and what its stored values are: for a site's own inventory."""
    from client.imaging import examination

    return examination.examine(content, brief) if brief.kind == "inventory" else examination.examine_picture(content, brief)


def tell_count(content: bytes, brief: Brief) -> int:
    """How many images a file gives at most."""
    if nifti.is_nifti(content):
        return nifti.count(content, brief.input)
    if brief.kind != "dicom":
        return 1
    dataset = dicom.header(content)
    _admitted(dataset, brief)
    return dicom.count(dataset, brief.input.frames)


TELLERS: dict[Kind, Callable[[bytes, Brief], Any]] = {
    "header": tell_header,
    "fhir": tell_diagnoses,
    "drawings": tell_drawings,
    "inventory": tell_all,
    "picture inventory": tell_all,
}


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
        slot, path, room = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, brief.limits.cpu_seconds)
        answer = _answer(brief, root, output, slot, path, room)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(results, answer)


def _say(results: IO[str], message: Any) -> None:
    results.write(json.dumps(message) + "\n")
    results.flush()


def _answer(brief: Brief, root: int, output: int, slot: int, path: str, room: int) -> list[Any]:
    try:
        content = read_beneath(root, path, largest=brief.limits.file_bytes)
        if brief.counting:
            return [slot, None, tell_count(content, brief)]
        if brief.kind in TELLERS:
            return [slot, None, TELLERS[brief.kind](content, brief)]
        taken = READERS[brief.kind](content, brief)
        places = _write(output, slot, room, taken.placed)
    except Rejected as rejected:
        return [slot, rejected.reason]
    except MemoryError:
        return [slot, Reason.TOO_LARGE]
    except _NotWritten as error:
        return [slot, "disk", str(error)]
    except Exception:  # nothing a file holds may end the run, or be printed
        return [slot, Reason.UNDECODABLE]
    whose = taken.identity
    said = [whose.issuer, whose.patient_id, whose.sop_instance_uid, whose.series_uid]
    return [slot, None, *said, places, room - len(places), list(taken.grid)]


class _NotWritten(Exception):
    """A sample could not be written; by the name of the system's error."""


def _write(output: int, slot: int, room: int, placed: Iterator[Placed]) -> list[float | None]:
    places: list[float | None] = []
    for place, pixels in placed:
        if len(places) == room:
            raise Rejected(Reason.PIXEL_FORMAT)  # more images than its header let expect
        try:
            slots.write(output, slot + len(places), pixels)
        except OSError as error:
            raise _NotWritten(errno.errorcode.get(error.errno or 0, "")) from error
        places.append(place)
    return places


def main() -> None:
    """Descriptors come as arguments: tasks, results, root folder, output file."""
    tasks, results, root, output = map(int, sys.argv[-4:])
    with os.fdopen(tasks, "r", encoding="ascii") as incoming, os.fdopen(results, "w", encoding="ascii") as outgoing:
        serve(incoming, outgoing, root, output)
