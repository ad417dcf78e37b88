# SPDX-License-Identifier: Apache-2.0
"""Attacks on our own training: what an observer gets out of it, beside what it promises.

`privacy` puts canary patients (`canaries`) into training, looks at what an observer has of them (`observed`) and turns right and wrong
guesses into a lower bound on epsilon (`one_run`); `findings` says what that comes to. For the report of a run (`exhibits`), `membership`
asks the final model who was trained on, `tradeoff` says how well any test can do against a promise that holds, and `inversion` rebuilds an
image from an update.

An attack bounds leakage from below. That one fails shows nothing; that one succeeds beyond the promise shows that the promise is broken.
"""
