"""This revision does what test/golden/ recorded: bit by bit where it was recorded, within tolerance elsewhere.

A change of behaviour that is meant is recorded anew: `python benchmarks/golden.py --record`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "golden.py"


@pytest.fixture(scope="module")
def golden() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("golden", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(golden: Any) -> Any:
    """The recorded data, without the fingerprint."""
    return golden.load(*golden.reference_files())[0]


@pytest.mark.timeout(1800)  # less than a minute on two idle cores
def test_everything_happens_as_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_tapes_hold_every_call_verdict_reason_and_state(golden: Any, reference: Any) -> None:
    assert not golden.uncovered(reference)
    assert all(len(reference[f"{robot}/tape/rows/state"]) == golden.CALLS for robot in golden.ROBOTS)


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_equal_is_accepted(golden: Any, reference: Any, exact: bool) -> None:
    for case in golden.CASES:
        result = golden.compare(case, reference, dict(reference), exact)
        assert (result.accepted, result.first, result.same) == (True, "", result.rows), case


CASE = "cart_pole/lock-step discrete"


def changed(reference: Any, name: str, at: int, value: Any) -> Any:
    """The reference with one entry changed."""
    column = reference[f"{CASE}/{name}"].copy()
    column[at] = value
    return reference | {f"{CASE}/{name}": column}


@pytest.mark.parametrize(
    ("name", "at", "value", "shown"),
    [
        ("rows/reason", 1500, "no_request", "row 1500: reason request -> no_request"),
        ("rows/digest", 1500, 1, "row 1500: bits that no column shows"),
        ("rows/action", 1500, -0.0, "row 1500: action"),
        ("rows/index", 1500, 99, "row 1500: index"),
        ("end/metrics", 0, 0.5, "end: metrics"),
    ],
)
def test_one_changed_entry_is_noticed(golden: Any, reference: Any, name: str, at: int, value: Any, shown: str) -> None:
    result = golden.compare(CASE, reference, changed(reference, name, at, value), True)
    assert not result.accepted and result.first.startswith(shown), result.first


def test_a_missing_row_is_noticed(golden: Any, reference: Any) -> None:
    shorter = {k: v[:-1] if k.startswith(f"{CASE}/rows/") else v for k, v in reference.items()}
    assert not golden.compare(CASE, reference, shorter, True).accepted


def test_minus_zero_is_not_zero(golden: Any) -> None:
    zeros = np.zeros(3)
    assert golden.differing(zeros, np.array([0.0, -0.0, 0.0]), None).tolist() == [False, True, False]
    assert not golden.differing(np.array([np.nan]), np.array([np.nan]), None).any()


@pytest.mark.parametrize(
    ("name", "at", "value", "accepted"),
    [
        ("rows/digest", 3, 1, True),  # bits are the machine's
        ("rows/margin", 3, 0.5, False),  # no rounding explains it
        ("rows/reason", 3, "no_request", False),  # nor a decision that early
        ("rows/reason", 1500, "no_request", True),  # a margin next to a threshold, somewhere
        ("end/metrics", 0, 0.5, False),
    ],
)
def test_elsewhere_rounding_is_accepted(
    golden: Any, reference: Any, name: str, at: int, value: Any, accepted: bool
) -> None:
    assert golden.compare(CASE, reference, changed(reference, name, at, value), False).accepted is accepted
