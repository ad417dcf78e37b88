# SPDX-License-Identifier: Apache-2.0
"""For all tests: a law holds or it does not, however busy the machine is that tries it."""

from hypothesis import settings

settings.register_profile("fedward", deadline=None)
settings.load_profile("fedward")
