# SPDX-License-Identifier: Apache-2.0
"""`fedward site serve` with its noise drawn from a seed, so that two runs can be compared bit by bit. NOT PRIVATE. For the rig alone.

    python -m simulations.rig.seeded_site SEED --home DIR

Whoever knows the seed can subtract the noise from what this site sends. The deployed program has no switch for this, on purpose: a
switch can be found by somebody in a hurry. So the rig starts the deployed program with one thing in it exchanged, from outside, and the
patients here are made up.
"""

import sys
from pathlib import Path
from typing import Any

from client.home import read_site_file
from client.process.events import Log
from client.process.serve import Serving, serve
from client.process.serve_cli import GRACE_S
from client.site import Site

WARNING = "\033[1;31mNOT PRIVATE: this site draws its noise from a seed. Never start it where there are patients.\033[0m\n"


def seed_sites(seed: int) -> None:
    """From now on every site that this process opens draws its noise from a seed, as a simulated one may."""
    honestly = Site.__init__

    def seeded(self: Site, *arguments: Any, **named: Any) -> None:
        honestly(self, *arguments, **named)
        self._unsafe_noise_seed = seed

    vars_of_site: Any = Site
    vars_of_site.__init__ = seeded


def main() -> None:
    """As `fedward site serve`, whose options it takes."""
    seed, home = int(sys.argv[1]), Path(sys.argv[sys.argv.index("--home") + 1])
    sys.stderr.write(WARNING)
    seed_sites(seed)
    socket = home / read_site_file(home).serve.socket
    serve(Serving(home=home, socket=socket, log=Log(who="site", form="json"), grace_s=GRACE_S), version="rig")


if __name__ == "__main__":
    main()
