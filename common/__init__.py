# SPDX-License-Identifier: Apache-2.0
"""What every party must agree on: plan, stages of an update, messages, models, tasks, privacy arithmetic. No files, no network."""
