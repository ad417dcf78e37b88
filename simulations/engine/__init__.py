# SPDX-License-Identifier: Apache-2.0
"""The simulation engine: Flower's `Grid` in-process, many sites over a few persistent worker processes.

grid      LocalEngine, what a coordinator sees
pool      which worker has which message; deadlines, deaths, replacements
nursery   the process that imports the ClientApp once and forks the workers
worker    a site, as long as a message lasts
frames    requests and replies between the two, in shared memory
parcel    Flower's messages, taken apart
memory    shared memory without names, which cannot leak
"""

from simulations.engine.grid import LocalEngine
from simulations.engine.nursery import Nursery

__all__ = ["LocalEngine", "Nursery"]
