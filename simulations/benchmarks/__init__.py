# SPDX-License-Identifier: Apache-2.0
"""Measurements against named limits and peers, each with its plan beside it. They may import anything, and are never imported."""
