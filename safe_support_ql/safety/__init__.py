"""Safe set -> certificate -> CandidateSet -> gate, and the formats of journal and ledger. NumPy and Numba only.

The gate decides; beside it stand what came in (inputs), what went out (sent), when it acts (timing), where the plan may
be (tube, blind), whether the robot moves as modelled (comparison, mismatch) and what it says (cause, reasons).
"""
