"""Candidates and requests survive the journey bit by bit, and those of another robot are refused."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.nodes.candidates import CandidateCodec, RequestCodec
from safe_support_ql.safety.candidates import CandidateSet

ROBOT = config.load_robot("diff_drive").robot


def test_a_candidate_set_comes_back_bit_by_bit(over_the_wire, candidate_set: CandidateSet) -> None:
    codec = CandidateCodec(ROBOT, False)
    got = codec.decode(over_the_wire(codec.encode(candidate_set)))
    for name in CandidateSet.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(got, name), getattr(candidate_set, name), err_msg=name)


def test_a_candidate_set_of_another_layout_is_refused(candidate_set: CandidateSet) -> None:
    message = CandidateCodec(ROBOT, False).encode(candidate_set)
    message.width -= 1
    with pytest.raises(ValueError, match="another robot or action space"):
        CandidateCodec(ROBOT, False).decode(message)
    message.header.frame_id = "map"
    with pytest.raises(ValueError, match="frame_id"):
        CandidateCodec(ROBOT, False).decode(message)


def test_a_request_names_its_candidate_bit_by_bit(over_the_wire, candidate_set: CandidateSet) -> None:
    codec = RequestCodec(ROBOT, "me")
    id, action, source = codec.decode(over_the_wire(codec.encode(candidate_set, candidate_set.actions[9])))
    assert id == candidate_set.id and candidate_set.find(action) == 9
    message = codec.encode(candidate_set, candidate_set.actions[9])
    message.name = ["id", "speed"]
    with pytest.raises(ValueError, match="lacks turn_rate"):
        codec.decode(message)
    message.name = ["id", "speed", "turn_rate"]
