# SPDX-License-Identifier: AGPL-3.0-or-later
"""Average precision by pycocotools, on the predictions of Ultralytics' validator."""
