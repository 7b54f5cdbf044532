"""A network as a file, and what runs it: ONNX export and latency."""
