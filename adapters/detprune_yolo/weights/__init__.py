"""Files of weights: Ultralytics checkpoints with masks, files that are none, ONNX."""
