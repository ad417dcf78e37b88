# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one HTML file that a hospital can print, made from the run folder and nothing else.

`folder` reads the parts into frozen types and names those that are missing; `scores`, `rounds` and `curves` derive what is shown;
`figures` and `pictures` draw, `gallery` chooses and describes the drawings; `setting` says what was run, `attacks` what attacks found, and
`wording` what all that allows one to say; `page` fills the template.
"""

from pathlib import Path

# `page` is imported when it is needed: drawing libraries take longer to load than a small run's first round takes to train.


def render(run_folder: Path) -> str:
    """The report of a run folder as one HTML document.

    Raises: DataNotFound, DataUnreadable for a folder whose run.json is missing or unreadable. Any other missing part is named in the page.
    """
    from simulations.report import page

    return page.render(run_folder)


def write(run_folder: Path) -> Path:
    """Put `report.html` into the run folder, whole or not at all. Raises: as `render`; DiskFull."""
    from simulations.report import page

    return page.write(run_folder)


__all__ = ["render", "write"]
