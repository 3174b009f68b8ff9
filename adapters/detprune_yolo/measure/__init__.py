# SPDX-License-Identifier: AGPL-3.0-or-later
"""Average precision by pycocotools, on what Ultralytics' validator predicts."""
