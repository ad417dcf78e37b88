# SPDX-License-Identifier: Apache-2.0
"""Whether a hospital's machine is ready, and if not, what to type: everything that has to be right before, and while, a site takes part.

    findings.py      what a look at one thing came to
    standing.py      as root, each folder is looked at by the eyes of the user who owns it
    permissions.py   owners and modes of the site's home, its keys, the mailbox, the socket between them
    agreed.py        site.toml, key, roster, policy, approved plan, pauses, ledger, snapshot, audit log
    volumes.py       on which volume a folder lies, and whether the kernel encrypts it
    machine.py       disk, processor and GPU, data folder, encrypted volume, installed versions
    link.py          the one way out: name, TCP, TLS, certificate, the coordinator's clock
    cli.py           the command

A look changes nothing: it takes no lock, writes no file and mends nothing by itself. It reads names, modes and heads, never an image, and
says nothing about a patient: no number of patients, no file's name below the data folder. What it does not do: prove that a machine is
safe. It knows what people forgot on other machines.
"""
