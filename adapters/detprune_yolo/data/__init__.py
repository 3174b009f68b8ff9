# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detection data: what can be wrong with it, and a set that is drawn."""
