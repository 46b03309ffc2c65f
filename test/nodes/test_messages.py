"""Vectors survive the way through messages bit by bit, and what does not fit is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from safe_support_ql import config
from safe_support_ql.nodes import messages
from safe_support_ql.recording.parts import OUTCOME_NAMES
from safe_support_ql.robots.world import Channel, CommandTopic
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Decision, State

ROBOT = config.load_robot("diff_drive").robot


def over_the_wire(message):
    """What a subscriber would get."""
    return deserialize_message(serialize_message(message), type(message))


def candidate_set(id: int = 7, episode: int = 3, stamp_ns: int = 1_500_000_001) -> CandidateSet:
    codec = messages.CandidateCodec(ROBOT, False)
    rng = np.random.default_rng(0)
    margin = rng.normal(size=codec.k).astype(np.float32)
    margin[-1] = -np.inf
    is_plan = np.zeros(codec.k, bool)
    is_plan[4] = True
    return CandidateSet(
        id, stamp_ns, episode, rng.normal(size=codec.d).astype(np.float32),
        rng.normal(size=(codec.k, codec.a)).astype(np.float32), margin > 0, margin > 0, margin > 1, is_plan, margin,
        rng.integers(0, 5, codec.k).astype(np.uint8),
    )  # fmt: skip


def decision(candidates: CandidateSet | None, index: int = 4, **changes) -> Decision:
    action = candidates.actions[index] if candidates else np.zeros(2, np.float32)
    values = {
        "sequence": 11,
        "id": candidates.id if candidates else 0,
        "episode": 3,
        "stamp_ns": 1_500_000_001,
        "action": action,
        "index": index if candidates else -1,
        "verdict": "certified",
        "reason": "request",
        "message": "why: a 'text'",
        "state": State.NOMINAL,
        "intervention": False,
        "candidates": candidates,
    }
    return Decision(**(values | changes))


@pytest.mark.parametrize("channel", ROBOT.channels, ids=lambda channel: channel.name)
def test_a_native_input_comes_back(channel: Channel) -> None:
    codec = messages.ChannelCodec(channel)
    vector = np.linspace(0.5, 2.0, channel.size)
    message = over_the_wire(codec.encode(vector, 12_345_678_901))
    np.testing.assert_allclose(codec.decode(message), vector, rtol=1e-6)  # a LaserScan holds float32
    assert messages.nanoseconds(message.header.stamp) == 12_345_678_901


def test_an_input_of_another_robot_is_refused_by_name() -> None:
    codec = messages.ChannelCodec(ROBOT.channels[1])
    message = over_the_wire(codec.encode(np.ones(ROBOT.channels[1].size), 0))
    message.header.frame_id = "map"
    with pytest.raises(ValueError, match=r"scan: header.frame_id is 'map', expected 'base_link'"):
        codec.decode(message)
    message.header.frame_id = "base_link"
    message.ranges = message.ranges[:-1]
    with pytest.raises(ValueError, match=r"scan: ranges has length 179, expected 180"):
        codec.decode(message)


def test_joint_names_and_arrays_of_any_topic() -> None:
    channel = Channel(
        "joint_states",
        "sensor_msgs/msg/JointState",
        ("position[]", "velocity[]"),
        length=2,
        constants={"name": ["a", "b"]},
    )
    codec = messages.ChannelCodec(channel)
    message = over_the_wire(codec.encode(np.array([1.0, 2.0, 3.0, 4.0]), 0))
    np.testing.assert_array_equal(codec.decode(message), [1.0, 2.0, 3.0, 4.0])
    message.position, message.velocity = [1.0], [2.0, 3.0, 4.0]  # the right number of numbers in all
    with pytest.raises(ValueError, match="joint_states: position has length 1, expected 2"):
        codec.decode(message)
    message.position, message.velocity = [1.0, 2.0], []
    with pytest.raises(ValueError, match="joint_states: velocity has length 0, expected 2"):
        codec.decode(message)
    message.name = ["b", "a"]
    with pytest.raises(ValueError, match="joint_states: name"):
        codec.decode(message)
    with pytest.raises(ValueError, match="nothing"):
        messages.ChannelCodec(Channel("x", "sensor_msgs/msg/JointState", ("nothing",)))
    with pytest.raises(ValueError, match="'no_msgs/msg/None' is not installed"):
        messages.ChannelCodec(Channel("x", "no_msgs/msg/None", ()))


@pytest.mark.parametrize("stamped", [True, False])
def test_a_command_comes_back_with_and_without_a_header(stamped: bool) -> None:
    codec = messages.CommandCodec(ROBOT.command, stamped)
    message = over_the_wire(codec.encode(np.array([0.3, -1.2], np.float32), 2_000_000_003))
    np.testing.assert_array_equal(codec.decode(message), np.array([0.3, -1.2], np.float32).astype(float))
    assert hasattr(message, "header") == stamped


def test_an_array_command_comes_back() -> None:
    codec = messages.CommandCodec(CommandTopic("effort", "std_msgs/msg/Float64MultiArray", ("data[]",)), True)
    message = over_the_wire(codec.encode(np.array([0.1, 0.2, 0.3], np.float32), 0))
    np.testing.assert_array_equal(codec.decode(message), np.array([0.1, 0.2, 0.3], np.float32).astype(float))


def test_a_candidate_set_comes_back_bit_by_bit() -> None:
    codec, sent = messages.CandidateCodec(ROBOT, False), candidate_set()
    got = codec.decode(over_the_wire(codec.encode(sent)))
    for name in CandidateSet.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name), err_msg=name)


def test_a_candidate_set_of_another_layout_is_refused() -> None:
    message = messages.CandidateCodec(ROBOT, False).encode(candidate_set())
    message.width -= 1
    with pytest.raises(ValueError, match="another robot or action space"):
        messages.CandidateCodec(ROBOT, False).decode(message)
    message.header.frame_id = "map"
    with pytest.raises(ValueError, match="frame_id"):
        messages.CandidateCodec(ROBOT, False).decode(message)


def test_a_request_names_its_candidate_bit_by_bit() -> None:
    candidates, codec = candidate_set(), messages.RequestCodec(ROBOT, "me")
    id, action = codec.decode(over_the_wire(codec.encode(candidates, candidates.actions[9])))
    assert id == candidates.id and candidates.find(action) == 9
    message = codec.encode(candidates, candidates.actions[9])
    message.name = ["id", "speed"]
    with pytest.raises(ValueError, match="lacks turn_rate"):
        codec.decode(message)
    message.name = ["id", "speed", "turn_rate"]


def test_a_decision_comes_back() -> None:
    candidates = candidate_set()
    got = messages.decode_decision(over_the_wire(messages.encode_decision(decision(candidates), 1234)))
    np.testing.assert_array_equal(got.action, candidates.actions[4])
    assert (got.sequence, got.id, got.episode, got.stamp_ns, got.index) == (11, 7, 3, 1_500_000_001, 4)
    assert (got.verdict, got.reason, got.message, got.state) == ("certified", "request", "why: a 'text'", "nominal")
    assert got.certificate_us == 1234 and not got.intervention
    assert got.margin == pytest.approx(float(candidates.margin[4]))


def test_a_blind_decision_comes_back() -> None:
    sent = decision(None, verdict="no_proof", reason="input_missing", state=State.BACKUP)
    message = over_the_wire(messages.encode_decision(sent))
    got = messages.decode_decision(message)
    assert got.id == 0 and got.index == -1 and message.status[0].level == messages.LEVELS["error"]


@pytest.mark.parametrize("key", ["sequence", "action", "verdict", "candidate"])
def test_a_decision_without_a_value_is_refused(key: str) -> None:
    message = messages.encode_decision(decision(candidate_set()))
    message.status[0].values = [item for item in message.status[0].values if item.key != key]
    with pytest.raises(ValueError, match=key):
        messages.decode_decision(message)


def test_episode_and_outcome_come_back() -> None:
    episode = messages.Episode(2**61 + 5, 9, "collection", 123, "robot_a", 10**18)
    assert messages.decode_episode(over_the_wire(messages.encode_episode(episode))) == episode
    values = {name: float(i) for i, name in enumerate(OUTCOME_NAMES)}
    table, stamp_ns, visit = messages.decode_outcome(over_the_wire(messages.encode_outcome(values, 5, "at x")))
    assert (table, stamp_ns, visit) == (values, 5, "at x")
