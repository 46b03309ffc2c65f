"""What the tests of messages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from safe_support_ql import config
from safe_support_ql.nodes.candidates import CandidateCodec
from safe_support_ql.safety.candidates import CandidateSet


@pytest.fixture
def over_the_wire() -> Callable[[Any], Any]:
    """What a subscriber would get of a message."""
    return lambda message: deserialize_message(serialize_message(message), type(message))


@pytest.fixture
def candidate_set() -> CandidateSet:
    """A set of the diff_drive with random values: id 7, episode 3, certified or not, one plan."""
    codec = CandidateCodec(config.load_robot("diff_drive").robot, False)
    rng = np.random.default_rng(0)
    margin = rng.normal(size=codec.k).astype(np.float32)
    margin[-1] = -np.inf
    is_plan = np.zeros(codec.k, bool)
    is_plan[4] = True
    return CandidateSet(
        7, 1_500_000_001, 3, rng.normal(size=codec.d).astype(np.float32),
        rng.normal(size=(codec.k, codec.a)).astype(np.float32), margin > 0, margin > 0, margin > 1, is_plan, margin,
        rng.integers(0, 5, codec.k).astype(np.uint8),
    )  # fmt: skip
