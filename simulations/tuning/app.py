# SPDX-License-Identifier: Apache-2.0
"""The ClientApp that hospitals run, with the accountant in memory: each trial forks workers of its own, which need not load it again."""

import dp_accounting  # noqa: F401 - for the workers that are forked from here

from client.app import app

__all__ = ["app"]
