# SPDX-License-Identifier: Apache-2.0
"""The real client and server, many times, on one machine. This room owns no second copy of either."""
