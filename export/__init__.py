"""The deployable network and everything it becomes: torch modules, fused ONNX, TensorRT."""
