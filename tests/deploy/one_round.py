# SPDX-License-Identifier: Apache-2.0
"""What a site does in a round, from the charge to the stored update: `python one_round.py HOME`. Started confined by test_systemd.py."""

import errno
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from client.membership.approval import approved_plan
from client.site import Site
from common.models import initial_weights
from common.plan import digest_of
from common.wire import Step, TrainRequest


def main() -> None:
    home = Path(sys.argv[1])
    plan = approved_plan(home)
    step = Step(session=bytes(16), round=1, attempt=0, plan=digest_of(plan))
    reply = Site.open(home, plan).train_ideal(TrainRequest(step=step, weights=initial_weights(plan)))
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        refused = errno.errorcode[error.errno or 0]
    else:
        refused = "an internet socket was opened"
    sys.stdout.write(f"{reply.update.words.size} values, uid {os.geteuid()}, sockets: {refused}, routes: {_routes()}\n")


def _routes() -> int:
    return sum(not line.startswith("Iface") for line in Path("/proc/net/route").read_text().splitlines())


if __name__ == "__main__":
    main()
