"""Safe set -> certificate -> CandidateSet -> gate, and the formats of journal and ledger. NumPy and Numba only."""
