# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' trainer with an exact resume, and with a pruner bound to it."""
