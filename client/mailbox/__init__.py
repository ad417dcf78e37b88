# SPDX-License-Identifier: Apache-2.0
"""The mailbox: it carries envelopes between a coordinator's SuperLink and the site process, and can do nothing else.

    SuperLink <--(TLS, outbound, one address)--> mailbox <--(Unix-domain socket)--> site process

To Flower it is a node: it activates itself, sends heartbeats, pulls messages and pushes replies, with Flower's own client code
(`flower.py`, the one module that knows Flower's private names). Unlike a SuperNode it never fetches an app bundle and never runs one, so
no code that a coordinator chose runs at the hospital. It holds no pixel, no identity key, no ledger, and loads no torch. What it may carry
is the list in `carrier.py`; what may be answered, the site decides, which trusts no mailbox: every message down is signed.

    settings.py    mailbox.toml: where to, whom to believe, where the socket is
    flower.py      Flower's Fleet API: one node's calls, and what their failures mean
    retrying.py    how long to wait before the next try, and before the next look
    tally.py       bytes sent, and sent again
    pending.py     messages that were taken and not answered yet, so that a killed mailbox goes on with them
    carrier.py     one message: fetch, ask the site, push the answer
    life.py        the process: connect, poll, carry, reconnect, leave

A mailbox may be killed at any time. It remembers under which number Flower knows it, so it is back at once, and which messages it had
taken, so that nothing is lost between Flower, which hands a message out once, and the site, which answers the same message the same.
"""
