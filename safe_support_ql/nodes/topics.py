"""The names of all topics, and their quality of service: new topics go here, and into the table of docs/topics.md."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

CANDIDATES, REQUEST, DECISION = "candidates", "request", "decision"
EPISODE, EPISODE_ACK, OUTCOME = "episode", "episode_ack", "outcome"
HEARTBEAT, LEARNER_STATUS, GATE_STATE, E_STOP = "recorder/heartbeat", "learner/status", "gate_state", "e_stop"
LEDGER_HEAD, MARKERS = "recorder/ledger_head", "markers"
HOLD, DEAD_MAN, TELEOP = "hold", "dead_man", "teleop/"
COURIER_WANT, COURIER_PART = "courier/want", "courier/part"
SHADOW, MODEL_SWAP, MODEL_ACTIVE = "shadow", "model/swap", "model/active"
DIAGNOSTICS = "/diagnostics"  # the only absolute name, because tools expect it


def reliable(depth: int) -> QoSProfile:
    """Reliable, volatile, keep last: a stopped subscriber cannot block a publisher; numbers show lost messages."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


LATEST = reliable(1)
CHAIN = reliable(10)
RECORDED = reliable(1000)  # for messages that must not be lost while a disk syncs or a certificate is compiled
SENSOR = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
HEARD = QoSProfile(depth=1000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)  # of these
# Readers on the path of a tick: lock-step sends again what was lost, real time has a next one, and acknowledgements
# wake two processes each.
ONCE = QoSProfile(depth=2, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
BUTTON = QoSProfile(
    depth=1000,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
