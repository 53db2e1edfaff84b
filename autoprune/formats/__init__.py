"""Files in and out: ONNX to canonical networks."""
