# SPDX-License-Identifier: Apache-2.0
"""Pixels in: from a folder of DICOM files, or of pictures with an index, to a `Dataset` that training can read.

    file -> bytes -> Instance -> Sample -> cache -> Dataset
            listing  dicom       sample    cache    intake

`listing` finds files and never leaves the root. `dicom` and `pixels` read one file, `intensity` and `sample` turn it into what the plan
asks for; they run in `worker`, a process with limits, since a file may be hostile. `readers` drives those processes, `cache` keeps their
output. `identity` makes keyed names out of identifiers, `labels` and `folder` read what people wrote in CSV, `splits` keeps patients on
one side, and `intake` puts it together and accounts for every file.

Nothing here is imported eagerly: a worker must start in a fraction of a second.
"""
