# SPDX-License-Identifier: Apache-2.0
"""What a site's own images are, on one page for the site alone: who, from which machines, with which labels, and what a plan makes of them.

    folder -> headers, verdicts and a few samples (facts) -> counts and cross-tables (tables) -> what to look at (remarks) -> page

The page shows images, and groups of any size: it is written for its owner alone (0600), and no command sends it anywhere. It names nobody
all the same. No identifier, date or file name is on it, and a text that people can type into a header (a protocol's name) is shown only if
it stands in the images of several patients, since one that stands with a single patient may be about them.
"""
