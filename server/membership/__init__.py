# SPDX-License-Identifier: Apache-2.0
"""Who takes part, at the coordinator: rosters and their custodian, requests, signed plans, news to sites, and the roll of a run."""
