# SPDX-License-Identifier: Apache-2.0
"""The processes of a hospital: the door that a message comes by, the handler behind every door, what the site process tells of itself."""
