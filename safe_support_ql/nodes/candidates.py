"""The messages of candidate sets and requests: their fields, encoded and decoded bit by bit."""

from __future__ import annotations

import array
import re

import numpy as np
from sensor_msgs.msg import JointState, PointCloud2, PointField

from safe_support_ql.nodes.native import nanoseconds, stamp_of
from safe_support_ql.robots.base import Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, CandidateSet, candidate_count
from safe_support_ql.safety.request import parse_request

FRAME = re.compile(r"id/([0-9]{1,18})/episode/([0-9]{1,10})")
LAST_EPISODE = 2**32 - 1  # that the journal holds


class CandidateCodec:
    """CandidateSet <-> PointCloud2 with K points of float32 fields, and the observation after the last point.

    Fields: every action name, margin, certified, band, is_plan, centre, offered; `observation` (offset K * point_step,
    count D), because PointCloud2 has no other place for it. header.frame_id = "id/<id>/episode/<n>".
    """

    def __init__(self, robot: Robot, continuous: bool) -> None:
        """For the candidate sets of `robot`."""
        self.k = candidate_count(robot, continuous) + EXTRA_SLOTS
        self.a, self.d = len(robot.action_names), len(robot.observation_names)
        self.columns = self.a + 6
        names = [*robot.action_names, "margin", "certified", "band", "is_plan", "centre", "offered"]
        self._names = [*names, "observation"]
        single = PointField.FLOAT32
        fields = [PointField(name=name, offset=4 * i, datatype=single, count=1) for i, name in enumerate(names)]
        step = 4 * self.columns
        fields.append(PointField(name="observation", offset=self.k * step, datatype=single, count=self.d))
        self._message = PointCloud2(
            height=1, width=self.k, fields=fields, point_step=step, row_step=self.k * step + 4 * self.d, is_dense=False
        )
        self._buffer = np.zeros(self.k * self.columns + self.d, np.float32)
        self._table = self._buffer[: self.k * self.columns].reshape(self.k, self.columns)

    def encode(self, candidates: CandidateSet) -> PointCloud2:
        """The message; the same object at every call."""
        a, table = self.a, self._table
        table[:, :a] = candidates.actions
        table[:, a] = candidates.margin
        table[:, a + 1] = candidates.certified
        table[:, a + 2] = candidates.band
        table[:, a + 3] = candidates.is_plan
        table[:, a + 4] = candidates.centre
        table[:, a + 5] = candidates.offered
        self._buffer[self.k * self.columns :] = candidates.observation
        self._message.header.stamp = stamp_of(candidates.stamp_ns)
        self._message.header.frame_id = f"id/{candidates.id}/episode/{candidates.episode}"
        self._message.data = array.array("B", self._buffer.tobytes())
        return self._message

    def decode(self, message: PointCloud2) -> CandidateSet:
        """The set. Raises ValueError if the message is of another robot or layout, or holds what no set can."""
        match = FRAME.fullmatch(message.header.frame_id)
        if match is None or int(match[2]) > LAST_EPISODE:
            raise ValueError(f"candidates: frame_id is {message.header.frame_id!r}, expected 'id/<id>/episode/<n>'")
        size = self.k * self.columns + self.d
        if message.width != self.k or message.point_step != 4 * self.columns or len(message.data) != 4 * size:
            raise ValueError(
                f"candidates: {message.width} points of {message.point_step} bytes, {len(message.data)} in all; "
                f"expected {self.k} of {4 * self.columns}, {4 * size}: another robot or action space"
            )
        if message.is_bigendian or (names := [field.name for field in message.fields]) != self._names:
            found = "big-endian numbers" if message.is_bigendian else ", ".join(names)
            raise ValueError(f"candidates: holds {found}; expected little-endian {', '.join(self._names)}")
        values = np.frombuffer(message.data, np.float32)
        table, a = values[: size - self.d].reshape(self.k, self.columns), self.a
        flags, centres, plan = table[:, a + 1 :], table[:, a + 4], table[:, a + 3] != 0.0
        if not np.isfinite(values[size - self.d :]).all() or not np.isfinite(flags).all():
            raise ValueError("candidates: the observation or a flag is a NaN or infinity")
        if (centres < 0.0).any() or (centres > 255.0).any():
            raise ValueError("candidates: the index of a rest position is not in [0, 255]")
        if not np.isfinite(table[:, :a]).all():
            raise ValueError("candidates: an action holds a NaN or infinity")
        if plan.sum() != 1:
            raise ValueError(f"candidates: {plan.sum()} of them are the plan, must be one")
        return CandidateSet(
            id=int(match[1]),
            stamp_ns=nanoseconds(message.header.stamp),
            episode=int(match[2]),
            observation=values[size - self.d :],
            actions=table[:, :a],
            margin=table[:, a],
            certified=table[:, a + 1] != 0.0,
            offered=table[:, a + 5] != 0.0,
            band=table[:, a + 2] != 0.0,
            is_plan=plan,
            centre=table[:, a + 4].astype(np.uint8),
        )


class RequestCodec:
    """(candidate id, action) <-> JointState, a named vector; header.frame_id names the requesting node."""

    def __init__(self, robot: Robot, source: str = "") -> None:
        """Requests of the node `source` for `robot`."""
        self.robot = robot
        self._message = JointState(name=["id", *robot.action_names])
        self._message.header.frame_id = source

    def encode(self, candidates: CandidateSet, action: Singles) -> JointState:
        """A request for `candidates`. float64 holds ids up to 2^53 and float32 actions exactly."""
        self._message.header.stamp = stamp_of(candidates.stamp_ns)
        self._message.position = array.array("d", (candidates.id, *action.tolist()))
        return self._message

    def decode(self, message: JointState) -> tuple[int, Singles, str]:
        """(candidate id, action, requesting node). Raises ValueError naming what is missing."""
        values = np.asarray(message.position, np.float64)
        return (*parse_request(message.name, values, self.robot), message.header.frame_id)
