# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files of weights: Ultralytics checkpoints with masks, the refusal of other files, ONNX."""
