# SPDX-License-Identifier: Apache-2.0
"""How a hospital comes in, stays in and goes: keys and requests, rosters in force, plans that its operator signed for, news, a pause."""
