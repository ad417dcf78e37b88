# SPDX-License-Identifier: Apache-2.0
"""How good predictions are, as clinicians read it: a file for each kind of task, and one for each thing that is said of several.

`classes` (one class against the rest), `averages`, `calibration` and `benefit` (decision curve) are of probabilities; `operating` chooses
a threshold on validation patients; `groups` says the same by site or subgroup, and of small groups nothing. `multilabel`, `segmentation`,
`detection` and `restoration` score a task each, all in one shape: figures for each class and over patients, `headline`, `as_dict`.
Classification itself is `common.tasks.scores`. What is resampled a thousand times is in `common.tasks.bootstrap`.

Nothing here knows a model, a file or a network. torchmetrics is imported when it is first needed.
"""
