# SPDX-License-Identifier: Apache-2.0
"""Counts of patients that may leave a site: noised, summed over the sites, charged.

A plan may have its models judged at the sites (kind EVAL) and ask what the training data are like (kind STAT). Both are one thing: a `Form`
that every unit of privacy fills in once, added up at each site, noised there, and summed over the sites as updates are. Nobody ever sees
one site's sum, and the coordinator sees the sum of all under noise.

    form          how far one unit can move a sum, the lattice, the noise
    evaluation    EVAL: one unit, one cell of a table of what it is against what the model says
    statistics    STAT: one unit, one class, and its intensity
    intervals     how sure one can be of what is read off noised counts
    choice        which judged model is kept, and when to stop

What this does not do: protect against a site that counts what is not there. Whoever takes part can move the sum.
"""

from common.counting import evaluation, statistics
from common.counting.form import Counted, Form
from common.counting.intervals import Estimate
from common.plan import Plan
from common.secagg.terms import Kind

__all__ = ["Counted", "Estimate", "Form", "form_of", "forms_of"]


def form_of(plan: Plan, kind: Kind) -> Form:
    """The form of one kind of count, which the plan must have. Raises: EpsilonImpossible."""
    assert kind is not Kind.UPDATE
    return evaluation.form(plan) if kind is Kind.EVAL else statistics.form(plan)


def forms_of(plan: Plan) -> tuple[Form, ...]:
    """All that a plan counts; usually nothing. Raises: EpsilonImpossible."""
    asked = {Kind.STAT: plan.statistics, Kind.EVAL: plan.evaluation}
    return tuple(form_of(plan, kind) for kind, section in asked.items() if section is not None)
