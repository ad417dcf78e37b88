# SPDX-License-Identifier: Apache-2.0
"""What every party writes down of a run, and how anybody finds out afterwards whether it was so.

    entries    the facts that a log can hold: a closed list, no free text        bundle   a party's log and what belongs to it, as files
    chain      lines that name each other by hash and are signed                 verify   from all parties' bundles to findings
    log        the file: lock, append, fsync

Each site and the coordinator keep a log of their own. With its keys for each round a site shows the coordinator and its peers the hash of
its log's last line, signed; peers write it into theirs and echo it later. So a log can be rewritten only together with everybody's who saw
it, and the verifier needs one honest log to find the others out.
"""
