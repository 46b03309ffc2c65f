"""Serving an extracted policy: its manifest and its ONNX Runtime session. No torch here."""
