# SPDX-License-Identifier: Apache-2.0
"""From the hospital's archive (PACS) into a folder that the site reads: `fedward site import`.

    query -> listing -> what is missing -> transfer -> landing -> DIR/images/ab/ab12...dcm
                                                         `-> journal (what is here, with its hash)

Two languages, one transfer: `dicomweb` asks by QIDO-RS and WADO-RS, `dimse` by C-FIND and C-GET or C-MOVE. Both hand what arrives to
`landing`, which believes nothing: a file is kept only if it is the instance that was asked for, whole, and not larger than one may be.

This is the one part of a hospital's side that talks to the archive, and it is a command of its own: it ends. The site process, which reads
what lies here, has no network; the mailbox, which has one, cannot see the folder. asked = received + failed, each failure with a reason.
"""
