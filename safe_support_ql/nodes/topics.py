"""The names of all topics, who publishes and subscribes to them, and their quality of service: new topics go here.

Relative topics (a namespace per robot works):

    <robot.channels>     native types      simulator | robot -> safety_monitor
    <robot.command>      native type       safety_monitor -> robot (real-time simulator)
    candidates           PointCloud2       safety_monitor -> behavior_policy, inference, recorder
    request              JointState        behavior_policy | inference -> safety_monitor
    decision             DiagnosticArray   safety_monitor -> simulator, recorder, panel
    episode              DiagnosticArray   simulator -> safety_monitor, recorder; re-sent until acknowledged
    episode_ack          UInt64            safety_monitor -> simulator: the `key` of the episode message
    outcome              JointState        simulator -> recorder, conductor, panel
    recorder/heartbeat   UInt64            recorder -> safety_monitor: every decision below this number is written
    learner/status       DiagnosticArray   learner -> conductor, panel
    gate_state           String, latched   safety_monitor: "<state>: <cause>"
    e_stop               Bool              anyone -> safety_monitor: true latches
    markers              MarkerArray       safety_monitor -> RViz, 5 Hz while there is a subscriber
    /diagnostics         DiagnosticArray   safety_monitor
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

CANDIDATES, REQUEST, DECISION = "candidates", "request", "decision"
EPISODE, EPISODE_ACK, OUTCOME = "episode", "episode_ack", "outcome"
HEARTBEAT, LEARNER_STATUS, GATE_STATE, E_STOP = "recorder/heartbeat", "learner/status", "gate_state", "e_stop"
MARKERS = "markers"
DIAGNOSTICS = "/diagnostics"  # the only absolute name, because tools expect it


def reliable(depth: int) -> QoSProfile:
    """Reliable, volatile, keep last: a stopped subscriber cannot block a publisher; numbers show lost messages."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


LATEST = reliable(1)
CHAIN = reliable(10)
RECORDED = reliable(1000)  # for messages that must not be lost while a disk syncs or a certificate is compiled
SENSOR = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
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
