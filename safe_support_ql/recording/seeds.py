"""Which seeds of arenas belong to what. No two of these ranges overlap, so nothing is judged on what it was tuned on.

A changed number here changes which arenas a result was obtained in.
"""

from __future__ import annotations

RUN_STRIDE = 1_000_000  # the arenas of one training run, far more than it plays
RUNS = 800  # training runs with seeds of their own: run n takes the arenas from n * RUN_STRIDE on

TRAINING = range(0, RUNS * RUN_STRIDE)
CALIBRATION = range(850_000_000, 860_000_000)  # margins from recorded backup manoeuvres
TESTS = range(860_000_000, 870_000_000)  # the test suite, where it checks a robot in many arenas
MISMATCH = range(870_000_000, 880_000_000)  # robots that change while they move
COLLECTION = range(880_000_000, 890_000_000)  # what beta does in the worlds that the certificate covers
HELD_OUT = range(900_000_000, 1_000_000_000)  # evaluation, the same ones in every run; nothing is ever trained on them

RANGES = {
    "training": TRAINING,
    "calibration": CALIBRATION,
    "tests": TESTS,
    "mismatch": MISMATCH,
    "collection": COLLECTION,
    "held out": HELD_OUT,
}


def first_of_run(seed: int) -> int:
    """The first arena of the training run with this seed, which must lie in [0, RUNS - 1]."""
    return seed * RUN_STRIDE
