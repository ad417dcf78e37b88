# SPDX-License-Identifier: Apache-2.0
"""One way for a plan to contradict itself."""

from collections.abc import Callable
from dataclasses import dataclass

from common.plan.spec import Plan


@dataclass(frozen=True, slots=True)
class Rule:
    """One way for a plan to contradict itself; `where` is (section, key)."""

    where: tuple[str, str]
    broken: Callable[[Plan], bool]
    wrong: str
    fix: str
