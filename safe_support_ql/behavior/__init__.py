"""The behavior policy (beta), which collects the data. NumPy only."""
