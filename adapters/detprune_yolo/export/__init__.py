# SPDX-License-Identifier: AGPL-3.0-or-later
"""Export of pruned networks to Ultralytics' formats, and what each file gains."""
