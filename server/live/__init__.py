# SPDX-License-Identifier: Apache-2.0
"""The federation as its operator sees it while it runs: one status, shown in a terminal, on a page, and to Prometheus.

    status     what is known of a run, as one frozen value and one file          (run/status.json)
    story      (status, event) -> status: how it changes with what the coordinator sees
    watch      the coordinator's observer: tells the story, writes the file
    processes  what the supervisor says of the programs that the run needs      (run/processes.json)
    reasons    every code in words, and what to do about it
    wording    the sentences of page and terminal, in one place
    show       the terminal
    metrics    Prometheus
    serve      the page and the metrics, over HTTP on this machine

The ServerApp writes, everything else reads: page and metrics are served by the supervisor and stay when the coordinator's program dies.
What is shown is what the coordinator may know anyway (who takes part and when, sizes, codes) and what was released: committed rounds, the
length of the mean update, noised counts. It has no other figure of any site, so it can show none.
"""
