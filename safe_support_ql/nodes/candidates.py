"""The messages of candidate sets and requests: their fields, encoded and decoded bit by bit."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import JointState, PointCloud2, PointField

from safe_support_ql.nodes.native import nanoseconds, stamp_of
from safe_support_ql.robots.base import Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, CandidateSet, candidate_count
from safe_support_ql.safety.request import parse_request


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
        """The set. Raises ValueError if the message is of another robot or layout."""
        parts = message.header.frame_id.split("/")
        if len(parts) != 4 or not (parts[1].isdigit() and parts[3].isdigit()):
            raise ValueError(f"candidates: frame_id is {message.header.frame_id!r}, expected 'id/<id>/episode/<n>'")
        size = self.k * self.columns + self.d
        if message.width != self.k or message.point_step != 4 * self.columns or len(message.data) != 4 * size:
            raise ValueError(
                f"candidates: {message.width} points of {message.point_step} bytes, {len(message.data)} in all; "
                f"expected {self.k} of {4 * self.columns}, {4 * size}: another robot or action space"
            )
        values = np.frombuffer(message.data, np.float32)
        table, a = values[: size - self.d].reshape(self.k, self.columns), self.a
        return CandidateSet(
            id=int(parts[1]),
            stamp_ns=nanoseconds(message.header.stamp),
            episode=int(parts[3]),
            observation=values[size - self.d :],
            actions=table[:, :a],
            margin=table[:, a],
            certified=table[:, a + 1] != 0.0,
            offered=table[:, a + 5] != 0.0,
            band=table[:, a + 2] != 0.0,
            is_plan=table[:, a + 3] != 0.0,
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

    def decode(self, message: JointState) -> tuple[int, Singles]:
        """Raises ValueError naming what is missing."""
        return parse_request(message.name, np.asarray(message.position, np.float64), self.robot)
