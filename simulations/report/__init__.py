# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one HTML file that a hospital can print, made from the run folder and nothing else.

`folder` reads the parts into frozen types and names those that are missing; `evidence` derives what is shown; `figures` draws, `gallery`
chooses and describes the drawings; `wording` says in sentences what the numbers allow; `page` fills the template.
"""

from simulations.report.page import render, write

__all__ = ["render", "write"]
