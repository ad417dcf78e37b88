# SPDX-License-Identifier: Apache-2.0
"""What a site's patients have cost, and whether one thing more may be done: a file that belongs to the hospital.

The accountant of a privacy engine lives as long as the engine does: make a new one each round and every round looks like the first. Here
the file is the truth. Before a round trains, its cost is appended; if everything together would pass a cap, nothing is written, no image
is opened, and training is refused. All plans share one ledger for one set of patients, so that a second consortium does not begin at zero.

    chain     lines that name each other by hash, and what they add up to       gate      whether one more charge fits
    store     the file: lock, append, fsync                                     head      how far it had come, kept apart from it
    echo      what peers remember of it                                         witness   what they remember and it does not
    recovery  going on after an older copy was put back                         summary   what has been spent, for people
    export    for an auditor                                                    explain   a page for an ethics board

What it protects: patients against a hospital's own forgetting, restarts and restored backups included, and the hospital against anybody who
edits the file. What it does not: whoever holds the site's identity key and changes this program can write what they like.
"""

from client.ledger.chain import Chain, Position, read
from client.ledger.gate import Limits, limits_of
from client.ledger.store import Ledger, Occasion, Pen, Place
from common.privacy.entries import Entry

__all__ = ["Chain", "Entry", "Ledger", "Limits", "Occasion", "Pen", "Place", "Position", "limits_of", "read"]
