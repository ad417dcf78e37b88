# SPDX-License-Identifier: Apache-2.0
"""Attacks on our own training: what an observer gets out of it, beside what it promises.

`one_run` turns right and wrong guesses into a lower bound on epsilon; `membership` asks the final model who was trained on; `inversion`
rebuilds an image from an update; `tradeoff` says how well any test can do against a promise that holds.

An attack bounds leakage from below. That one fails shows nothing; that one succeeds beyond the promise shows that the promise is broken.
"""
