# SPDX-License-Identifier: Apache-2.0
"""FSA1: the coordinator is an adder, and a lie about the model, the cohort or the survivors gives it noise.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning" (2017), https://doi.org/10.1145/3133956.3133982,
sections 4 and 6: double masking with the parts that make it hold against a coordinator that lies. Keys are signed by hospitals, masks
are keyed by a transcript of all that was said, a threshold of sites must sign the survivors before a share leaves, and one update
enters one released sum.

Both roles stand here and neither touches a network, a file or a clock: bytes come in, bytes go out, randomness is an argument.

    field, shamir, keys, masks, quantise   the mathematics
    codec, messages                        what is said, byte for byte
    terms, agreement                       what was agreed before, and how it follows from plan and roster
    cases, checks                          what a site makes sure of
    stages, site, memory, durable          a site's life, step by step, and how it survives a kill
    coordinator, unmask, groups            the coordinator's

On the data's way: ReleasedDelta -> QuantisedUpdate (`quantise`) -> masked vector (`site`) -> AggregateSum (`unmask`).

What it does not do: hide who takes part, bound what a malicious site adds to the sum, or protect an update once the other sites of its
cohort all work together. Patient-level noise is for that.
"""
