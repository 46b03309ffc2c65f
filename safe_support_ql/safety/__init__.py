"""Safe set -> certificate -> CandidateSet -> gate. NumPy and Numba only.

The gate decides. Beside it stand what came in (inputs), what went out (sent), when it acts (timing), where the plan may
be (tube, blind), whether the robot moves as modelled (comparison, mismatch) and what the gate says (cause, reasons).
"""
