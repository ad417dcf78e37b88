# SPDX-License-Identifier: Apache-2.0
"""Which ClientApp plays the sites. Names only, so that a nursery can be started before anything heavy is imported here."""

from typing import Final

CLIENT_APP: Final = "client.app:app"
"""The one that hospitals run."""

FAULTY_APP: Final = "simulations.faults:app"
"""The same, failing on request."""
