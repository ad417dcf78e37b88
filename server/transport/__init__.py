# SPDX-License-Identifier: Apache-2.0
"""Asking sites over a network that loses, repeats and delays: questions, replies, and how long they are waited for."""
