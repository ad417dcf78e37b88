# SPDX-License-Identifier: Apache-2.0
"""`fedward tune`: which values of a plan's keys train best, found out by the federation itself, within one budget.

    space -> trials -> rungs of successive halving; in each, every fold of patients:  federation -> score -> who goes on
          -> the winner, with what is left of epsilon

A trial is a plan with some keys set anew. It is trained by the deployed client and server, on all patients of every site but those of one
fold, and judged on these. The worst trials stop early, the others go on where they stood (Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943), so that most rounds go into the trials that deserve them.

Looking costs what training costs. Every round of every trial, and every look at a model, is on the ledger of each site, one ledger for all
trials, with a cap that the site's own code enforces; what tuning may spend is set apart beforehand, and the plan that wins is written with
what is left. Trials of a private plan are chosen by noised counts alone, so choosing is post-processing: it costs nothing more, and nobody
sees the figures that were not released. The patients who are held out for the final score are seen by no trial.

    space       what may vary, and how trials are drawn from it
    halving     rungs, rounds and survivors: arithmetic
    price       what a schedule costs at worst, at every site, and the noise with which it fits
    precision   how well noised counts will tell trials apart
    folds       patients of every site, dealt into folds
    trials      a trial's plan and its homes, and training it up to a rung
    book        scores, as they become known
    search      the whole, from a folder that may already hold half of it
    winner      the plan that won, and what is left for it
"""
