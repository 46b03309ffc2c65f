"""Safe set -> certificate -> CandidateSet -> gate. NumPy and Numba only."""
