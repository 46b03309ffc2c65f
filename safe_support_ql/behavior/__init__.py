"""The distributions beta over a CandidateSet. NumPy only."""
