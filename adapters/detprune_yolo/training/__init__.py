# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' trainer, resumed exactly and with a pruner bound to it."""
