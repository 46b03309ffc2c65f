"""Use of an extracted policy: contract, manifest and ONNX Runtime session. No torch."""
