"""Average precision by pycocotools, on what Ultralytics' validator predicts."""
