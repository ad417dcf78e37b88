# SPDX-License-Identifier: Apache-2.0
"""Pixels in: from a folder of DICOM files, or of pictures with an index, to a `Dataset` that training can read.

    file -> bytes   -> Instance -> Sample -> slot  -> Dataset
            listing    dicom       sample    slots    intake

`listing` finds files and never leaves the root. `dicom` and `pixels` read one file, `intensity` and `sample` turn it into what the plan
asks for; they run in `worker`, a process with limits, since a file may be hostile. `readers` drives those processes, which write into
`slots`; `cache` keeps the result. `identity` makes keyed names out of identifiers, `labels` and `index` read what people wrote in CSV,
`splits` keeps patients on one side. `dicom_folder` and `picture_folder` put it together for their kind of folder, `intake` is the front
door, `report` the account of every file, `rejection` the reasons.

Nothing here is imported eagerly: a worker must start in a fraction of a second.
"""
