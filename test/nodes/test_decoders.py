"""Whatever a message of the right type holds, a decoder returns values that make sense, or says what is wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import String

from safe_support_ql import config
from safe_support_ql.nodes import native, tables
from safe_support_ql.nodes.candidates import CandidateCodec, RequestCodec
from safe_support_ql.recording.parts import OUTCOME_NAMES
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Decision, State

ROBOTS = {name: config.load_robot(name).robot for name in ("diff_drive", "cart_pole")}
ROBOT = ROBOTS["diff_drive"]
CANDIDATES = CandidateCodec(ROBOT, False)

NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.5, 99.0, 1e18, 2.0**64, 1e300, -1e300])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    ["", "nan", "-1", "1e400", "0.5", "9" * 30, "9" * 5000, "²", "1 2", "1 1 1 1", "nan nan", "inf 0", "NaN 0 0 0"]
)


@st.composite
def stamps(draw: st.DrawFn) -> Any:
    return native.Time(sec=draw(st.integers(-(2**31), 2**31 - 1)), nanosec=draw(st.integers(0, 2**32 - 1) | st.just(5)))


def over(message: Any) -> Any:
    """What a subscriber gets."""
    return deserialize_message(serialize_message(message), type(message))


def candidate_set() -> CandidateSet:
    k, d, a = CANDIDATES.k, CANDIDATES.d, CANDIDATES.a
    return CandidateSet(
        7, 5, 3, np.zeros(d, np.float32), np.zeros((k, a), np.float32), np.ones(k, bool), np.ones(k, bool),
        np.zeros(k, bool), np.arange(k) == 4, np.ones(k, np.float32), np.zeros(k, np.uint8),
    )  # fmt: skip


DECISION = Decision(
    1, 7, 3, 5, np.zeros(2, np.float32), 4, "certified", "request", "", State.NOMINAL, False, candidate_set()
)
# Of every topic one message as it should be; a DiagnosticArray is spoilt key by key.
TABLES: dict[str, tuple[DiagnosticArray, Callable[[Any], Any]]] = {
    "decision": (tables.encode_decision(DECISION), lambda m: tables.decode_decision(m, 2)),
    "episode": (tables.encode_episode(tables.Episode(1, 1, "collection", 0, "robot", 5)), tables.decode_episode),
    "learner/status": (
        tables.encode_status(
            "learner", 0, "", "ok", {"state": "idle", "budget": 3, "updates": 2.0, "q_loss": math.nan}
        ),
        tables.decode_learner,
    ),
}


def sense(decoded: Any) -> None:
    """Nothing behind a decoder checks again."""
    for value in vars(decoded).values() if hasattr(decoded, "__dict__") else decoded:
        if isinstance(value, float):
            assert not math.isnan(value)
        if isinstance(value, int):
            assert -(2**63) <= value < 2**63


def only_a_sentence(decode: Callable[[Any], Any], message: Any, topic: str) -> Any:
    try:
        return decode(over(message))
    except ValueError as error:
        assert topic in str(error), error
        return None


@pytest.mark.parametrize("topic", TABLES)
@given(data=st.data())
def test_a_table_with_any_key_spoilt_is_refused_or_makes_sense(topic: str, data: st.DataObject) -> None:
    right, decode = TABLES[topic]
    assert decode(over(right)) is not None
    message = copy.deepcopy(right)
    message.header.stamp = data.draw(stamps())
    for item in data.draw(st.lists(st.sampled_from(message.status[0].values), max_size=3)):
        item.value = data.draw(TEXTS)
    lost = data.draw(st.sets(st.integers(0, len(right.status[0].values) - 1), max_size=1))
    message.status[0].values = [item for i, item in enumerate(message.status[0].values) if i not in lost]
    decoded = only_a_sentence(decode, message, topic)
    if decoded is not None and topic != "learner/status":
        sense(decoded)


@pytest.mark.parametrize("topic", TABLES)
@given(
    values=st.lists(st.tuples(TEXTS | st.sampled_from(["key", "state", "action"]), TEXTS), max_size=4),
    count=st.integers(0, 2),
)
def test_a_table_of_somebody_else_is_refused(topic: str, values: list[tuple[str, str]], count: int) -> None:
    status = DiagnosticStatus(values=[KeyValue(key=key, value=value) for key, value in values])
    assert only_a_sentence(TABLES[topic][1], DiagnosticArray(status=[status] * count), topic) is None or values


VECTORS = st.lists(NUMBERS, max_size=4)
OUTCOME = {name: 0.0 for name in OUTCOME_NAMES} | {"executed": -1.0}


@given(spoilt=st.dictionaries(st.sampled_from(OUTCOME_NAMES), NUMBERS, max_size=3), stamp=stamps())
def test_an_outcome_with_any_value_spoilt_is_refused_or_makes_sense(spoilt: dict[str, float], stamp: Any) -> None:
    message = tables.encode_outcome(OUTCOME | spoilt, 0, "at x")
    message.header.stamp = stamp
    decoded = only_a_sentence(tables.decode_outcome, message, "outcome")
    if decoded is not None:
        table = decoded[0]
        assert set(table) == set(OUTCOME_NAMES) and not any(math.isnan(value) for value in table.values())
        assert int(table["phase"]) in range(5) and table["unsafe_visits"] >= 0 and table["executed"] >= -1


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("phase", 5.0, "phase is 5, must be a whole number in [0, 4]"),
        ("phase", math.nan, "phase is nan"),
        ("unsafe_visits", -1.0, "unsafe_visits is -1"),
        ("tick", 0.5, "tick is 0.5, must be a whole number"),
        ("reward", math.inf, "reward is inf, must be a number"),
        ("done", 2.0, "done is 2, must be a whole number in [0, 1]"),
    ],
)
def test_an_outcome_says_which_value_cannot_be(name: str, value: float, why: str) -> None:
    with pytest.raises(ValueError, match="^outcome: ") as refused:
        tables.decode_outcome(tables.encode_outcome(OUTCOME | {name: value}, 0, ""))
    assert why in str(refused.value)


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
@given(data=st.data())
def test_a_named_vector_of_anybody_is_refused_or_makes_sense(robot: Robot, data: st.DataObject) -> None:
    known = [*OUTCOME_NAMES, "id", *robot.action_names, "slider_to_cart", "cart_to_pole"]
    message = JointState(
        name=data.draw(st.lists(TEXTS | st.sampled_from(known), max_size=4)),
        position=data.draw(VECTORS), velocity=data.draw(VECTORS), effort=data.draw(VECTORS),
    )  # fmt: skip
    assert only_a_sentence(tables.decode_outcome, message, "outcome") is None
    only_a_sentence(RequestCodec(robot).decode, message, "request")
    for channel in robot.channels:
        if channel.type.endswith("/JointState"):
            vector = only_a_sentence(native.ChannelCodec(channel).decode, message, channel.name)
            assert vector is None or (vector.shape == (channel.size,) and np.isfinite(vector).all())


@given(id=NUMBERS, action=st.lists(NUMBERS, min_size=1, max_size=3), source=TEXTS)
def test_a_request_holds_a_whole_id_and_float32(id: float, action: list[float], source: str) -> None:
    message = JointState(name=["id", *ROBOT.action_names], position=[id, *action])
    message.header.frame_id = source
    decoded = only_a_sentence(RequestCodec(ROBOT).decode, message, "request")
    if decoded is not None:
        assert decoded[0] == id and decoded[1].shape == (2,) and decoded[1].dtype == np.float32


@given(data=st.data())
def test_a_candidate_set_of_anybody_is_refused_or_makes_sense(data: st.DataObject) -> None:
    message = copy.deepcopy(CANDIDATES.encode(candidate_set()))
    spoil = data.draw(st.sampled_from(["nothing", "frame", "size", "fields", "values", "bytes", "empty"]))
    if spoil == "empty":
        message = PointCloud2()
    elif spoil == "frame":
        message.header.frame_id = data.draw(
            TEXTS | st.sampled_from(["id/²/episode/1", "id/-1/episode/1", f"id/1/episode/{2**32}", "id/1/episode/1/"])
        )
    elif spoil == "size":
        message.width, message.point_step = data.draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
    elif spoil == "fields":
        message.fields = [PointField(name=data.draw(TEXTS)) for _ in range(data.draw(st.integers(0, 3)))]
        message.is_bigendian = data.draw(st.booleans())
    elif spoil == "values":
        values = np.frombuffer(message.data, np.float32).copy()
        for place in data.draw(st.lists(st.integers(0, len(values) - 1), max_size=3)):
            values[place] = data.draw(st.floats(width=32))
        message.data = values.tobytes()
    elif spoil == "bytes":
        message.data = data.draw(st.binary(max_size=64))
    got = only_a_sentence(CANDIDATES.decode, message, "candidates")
    if got is not None:
        assert got.is_plan.sum() == 1 and np.isfinite(got.actions).all() and np.isfinite(got.observation).all()
        assert 0 <= got.episode < 2**32 and spoil in ("nothing", "values", "frame", "size", "fields")


@given(text=TEXTS)
def test_a_gate_state_is_one(text: str) -> None:
    got = only_a_sentence(tables.decode_gate_state, String(data=text), "gate_state")
    assert got is None or got.partition(":")[0] in tables.STATES
    for state in State:
        assert tables.decode_gate_state(String(data=f"{state.value}: {text}")).startswith(state.value)


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
@given(data=st.data())
def test_a_native_message_with_any_number_spoilt_is_refused_or_has_the_right_size(
    robot: Robot, data: st.DataObject
) -> None:
    for channel in robot.channels:
        codec = native.ChannelCodec(channel)
        message = copy.deepcopy(codec.encode(np.ones(channel.size), 5))
        for path in data.draw(st.lists(st.sampled_from(channel.fields), max_size=2)):
            value: Any = data.draw(NUMBERS) if not path.endswith("[]") else data.draw(VECTORS)
            if path == "ranges[]":
                value = data.draw(st.lists(st.floats(width=32), max_size=4))
            native.assign(message, path.removesuffix("[]"), value)
        message.header.stamp, message.header.frame_id = data.draw(stamps()), data.draw(TEXTS | st.just("odom"))
        reading = only_a_sentence(codec.read, message, channel.name)
        assert reading is None or (reading[0].shape == (channel.size,) and isinstance(reading[1], int))
        empty = only_a_sentence(codec.read, codec.type(), channel.name)
        assert empty is None or empty[0].shape == (channel.size,)


def test_a_command_of_another_robot_is_refused() -> None:
    codec = native.CommandCodec(ROBOTS["cart_pole"].command, True)
    with pytest.raises(ValueError, match="effort_command: holds a NaN"):
        codec.decode(SimpleNamespace(data=[math.nan]))
