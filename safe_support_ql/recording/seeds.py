"""The ranges of seeds of all arenas: another range goes here. They do not overlap, so no test uses tuning arenas.

A changed number changes the arenas of earlier results.
"""

RUN_STRIDE = 1_000_000  # arenas per training run, far more than it plays
RUNS = 800  # training runs: run n takes the arenas from n * RUN_STRIDE on

TRAINING = range(0, RUNS * RUN_STRIDE)
CALIBRATION = range(850_000_000, 860_000_000)  # recorded backup manoeuvres
TESTS = range(860_000_000, 870_000_000)  # tests that need many arenas
MISMATCH = range(870_000_000, 880_000_000)  # robots that change while they move
COLLECTION = range(880_000_000, 890_000_000)  # beta in the worlds that the certificate covers
HELD_OUT = range(900_000_000, 1_000_000_000)  # evaluation, the same arenas in every run; never used for training


def first_of_run(seed: int) -> int:
    """The first arena of the training run with this seed, which must lie in [0, RUNS - 1]."""
    return seed * RUN_STRIDE
