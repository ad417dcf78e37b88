# SPDX-License-Identifier: Apache-2.0
"""The coordinator: asks sites to train, averages what they release, commits each round. It never sees a pixel."""
