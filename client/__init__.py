# SPDX-License-Identifier: Apache-2.0
"""A hospital: pixels in, training, and one door out (`release.py`)."""
