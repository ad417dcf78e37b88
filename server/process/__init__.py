# SPDX-License-Identifier: Apache-2.0
"""The coordinator's processes: SuperLink, SuperExec and ServerApp, kept up by one supervisor that starts again what dies."""
