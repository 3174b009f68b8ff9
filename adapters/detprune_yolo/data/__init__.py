# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detection data: its check before training, and a drawn data set."""
