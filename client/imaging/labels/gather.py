# SPDX-License-Identifier: Apache-2.0
"""Labels from labels.toml: survey the folder, hear what its documents say, settle each image, and give account.

What comes out is `Labels` by path, as a labels.csv could have held them, so nothing that follows knows where a label came from.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from client.imaging.labels import rules, table
from client.imaging.labels.account import LabelAccount, Pair
from client.imaging.labels.agreement import MEANING, Settled, Statement, Why, settle
from client.imaging.labels.hearing import Heard, Hearing, Listening
from client.imaging.labels.rules import Rules
from client.imaging.labels.survey import Pictured, Source, Survey, Surveyor, used_files
from client.imaging.labels.table import Labels
from client.imaging.listing import Listing
from client.imaging.rejection import Reason
from common.errors import DataNotFound, LabelsMismatch
from common.plan import ClassificationSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The labels of a folder, and what was seen on the way: for the data report."""

    labels: Labels
    survey: Survey


def gather(surveyor: Surveyor, listing: Listing, rules_file: Path, task: ClassificationSpec) -> Gathered:
    """Raises: what reading labels.toml or its CSV raises; DataNotFound, if a file that it names is not in the folder; EngineError."""
    law = rules.read(rules_file)
    listening = _listening(law, task)
    sources = _named_files(law, listing)
    survey = surveyor.folder(listing.without(sources))
    documents = survey.documents
    if law.fhir is not None:
        documents += surveyor.exports(law.fhir.files, law.fhir.issuers)
    heard = Hearing(survey.images, documents).hear(listening)
    if law.csv is not None:
        _hear_csv(table.read(surveyor.root / law.csv.file, task), survey.images, surveyor, heard)
    settled = [settle(heard.statements.get(number, ()), law.labels.conflicts) for number in range(len(survey.images))]
    labels = Labels(
        key="path",
        column=rules_file.name,
        by_item={image.path: each.label for image, each in zip(survey.images, settled, strict=True) if each.label is not None},
        rows=sum(map(len, heard.statements.values())),
        known={**survey.rejected, **dict.fromkeys(sources, Reason.LABEL_SOURCE), **used_files(survey.documents, listening)},
        account=_account(settled, heard, [source.value for source in (*([Source.CSV] if law.csv else []), *listening)]),
    )
    if not labels.by_item:
        raise _nothing(rules_file, labels.account)
    return Gathered(labels=labels, survey=survey)


def _nothing(rules_file: Path, account: LabelAccount | None) -> LabelsMismatch:
    """The error for a folder of which no image gets a label: what was said in vain, and the commonest reason."""
    assert account is not None
    reasons = account.unused or account.unlabelled
    counts = ", ".join(f"{why.value} {count}" for why, count in reasons.most_common())
    worst = f"{reasons.most_common(1)[0][0].value}: {MEANING[reasons.most_common(1)[0][0]]} " if reasons else ""
    return LabelsMismatch(
        f"{rules_file.name}: not one of {account.images} images gets a label" + (f" ({counts})." if counts else "."),
        fix=f"{worst}Check the codes and files that {rules_file.name} names.",
    )


def _listening(law: Rules, task: ClassificationSpec) -> dict[Source, Listening]:
    found: dict[Source, Listening] = {}
    if law.structured_report is not None:
        meaning = rules.meaning(law.structured_report, task.classes, name=Source.REPORT)
        found[Source.REPORT] = Listening(
            meaning=meaning, verified=law.structured_report.verified, preliminary=law.structured_report.preliminary
        )
    if law.segmentation is not None:
        meaning = rules.meaning(law.segmentation, task.classes, name=Source.SEGMENTATION)
        found[Source.SEGMENTATION] = Listening(meaning=meaning, smallest=law.segmentation.smallest)
    if law.fhir is not None:
        found[Source.FHIR] = Listening(meaning=rules.meaning(law.fhir, task.classes, name=Source.FHIR))
    return found


def _named_files(law: Rules, listing: Listing) -> frozenset[str]:
    """The files that labels.toml names, as the listing has them. Raises: DataNotFound."""
    named = [*((law.csv.file,) if law.csv else ()), *(law.fhir.files if law.fhir else ())]
    here = {file.path for file in listing.files}
    for path in named:
        if path not in here:
            raise DataNotFound(
                f"{rules.RULES} names '{path}', and no such file is in the folder.",
                fix="Write its path below the folder, with '/' between folders. It may not be a link.",
            )
    return frozenset(named)


def _hear_csv(labels: Labels, images: Sequence[Pictured], surveyor: Surveyor, heard: Heard) -> None:
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        by_name[image.path if labels.key == "path" else image.item].append(number)
    for item, label in labels.by_item.items():
        numbers = by_name.get(item if labels.key == "path" else surveyor.name_of(item), [])
        if not numbers:
            heard.unused[Why.ABSENT] += 1
        for number in numbers:
            heard.statements[number].append(Statement(source=Source.CSV, document=f"row of {number}", date="", label=label))


def _account(settled: Sequence[Settled], heard: Heard, sources: Sequence[str]) -> LabelAccount:
    by_source = [_by_source(statements) for statements in heard.statements.values()]
    return LabelAccount(
        images=len(settled),
        labelled=Counter(each.label for each in settled if each.label is not None),
        unlabelled=Counter(each.why for each in settled if each.why is not None),
        settled=sum(each.contested and each.label is not None for each in settled),
        spoke={source: sum(source in said for said in by_source) for source in sources},
        unused=heard.unused,
        pairs=tuple(
            Pair(first=first, second=second, both=both)
            for first, second in combinations(sources, 2)
            if (both := Counter((said[first], said[second]) for said in by_source if first in said and second in said))
        ),
    )


def _by_source(statements: Sequence[Statement]) -> dict[str, int]:
    """What each source says of one image; -1 where it contradicts itself."""
    found: dict[str, int] = {}
    for each in statements:
        found[each.source] = each.label if found.get(each.source, each.label) == each.label else -1
    return found
