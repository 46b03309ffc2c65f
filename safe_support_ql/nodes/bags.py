"""Bags (rosbag2, MCAP): what a run recorded as messages that ROS 2 tools open, and the way back to journal records.

Topics: the robot's channels and `episode` byte for byte as the recorder heard them; the command, `candidates` and
`decision` as the monitor published them, from the journal; `outcome`, a JointState named OUTCOME; `ledger`, a line of
ledger.jsonl in each String; and `run`, one String that says as JSON what a reader needs to know. The journal keeps
neither the text and duration of a decision nor the rest position behind a candidate: those are empty and 0.

A message is logged when it was heard. In lock-step that is its stamp; where time began anew in a resumed run, the log
goes on. Definitions are those of ROS 2 Jazzy.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String

from safe_support_ql.bringup import Run
from safe_support_ql.config import Config
from safe_support_ql.experiments.replay import Executed, Heard
from safe_support_ql.nodes import native, tables, topics
from safe_support_ql.nodes.candidates import CandidateCodec
from safe_support_ql.recording import heard
from safe_support_ql.recording.files import CONFIG, INPUTS, JOURNAL, LEDGER
from safe_support_ql.recording.inputs import BEGIN, MARK, InputsReader, number
from safe_support_ql.recording.join import Arrived, Joined, make_record
from safe_support_ql.recording.journal import BAND, CERTIFIED, INTERVENED, OFFERED, PLAN, JournalReader, record_type
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision, State

if TYPE_CHECKING:
    from rosbags.rosbag2 import Reader

FORMAT = "safe_support_ql bag 1"
RUN, LEDGER_LINES = "/run", "/ledger"
OUTCOME = ("sequence", "episode", "phase", "first", "terminated", "truncated", "reward")
SECOND = 1_000_000_000
AHEAD = 200  # messages of all kinds that a decision waits for its sensors
STATE_AFTER = {
    "request": State.NOMINAL,
    "plan_requested": State.NOMINAL,
    "latched": State.LATCHED,
    "closed": State.CLOSED,
}


def _rosbags() -> Any:
    try:
        import rosbags.rosbag2
        import rosbags.serde
        import rosbags.typesys

        return rosbags
    except ImportError:
        raise ValueError("bags need the package rosbags: python3 -m pip install rosbags") from None


def _absolute(topic: str) -> str:
    return "/" + topic.lstrip("/")


# --- export -----------------------------------------------------------------------------------------------------------


def export(run: Run, settings: Config, out: Path) -> tuple[dict[str, int], int]:
    """Write the bag `out`; returns how many messages each topic has, and how many bytes of inputs.bin were damaged.

    Raises ValueError if `out` exists or cannot be written, or if the record of the run is damaged.
    """
    rosbag2 = _rosbags().rosbag2
    if out.exists():
        raise ValueError(f"{out}: exists already; give another --out")
    if not (run.folder / JOURNAL).exists():
        raise ValueError(f"{run.folder}: holds no {JOURNAL}; nothing was recorded")
    bag = _Writer(run, settings)
    try:
        with rosbag2.Writer(out, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
            return bag.write(writer), bag.inputs.damaged if bag.inputs else 0
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise ValueError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _exact(data: bytes, kind: str, store: Any) -> bytes:
    """`data` without what is behind the message: Fast CDR reserves room for arrays that are empty, and leaves it there.

    Other readers refuse that. What is no such message at all stays as it was heard.
    """
    for surplus in (0, 4, 8, 12):
        with contextlib.suppress(_rosbags().serde.SerdeError):
            store.deserialize_cdr(data[: len(data) - surplus], kind)
            return data[: len(data) - surplus]
    return data


class _Writer:
    """One export."""

    def __init__(self, run: Run, settings: Config) -> None:
        self.run, self.settings = run, settings
        robot = settings.robot
        self.journal = JournalReader(run.folder / JOURNAL)
        self.inputs = InputsReader(run.folder / INPUTS) if (run.folder / INPUTS).exists() else None
        self.codec = CandidateCodec(robot, run.continuous)
        self.commands = native.CommandCodec(robot.command, run.stamped_cmd)
        if (self.codec.d, self.codec.k, self.codec.a) != tuple(
            self.journal.header[size] for size in ("observation", "candidates", "action")
        ):
            raise ValueError(f"{self.journal.path}: is of another robot or action space than {CONFIG}")
        stamped = run.stamped_cmd or not robot.command.unstamped_type
        self.kinds = {
            topics.CANDIDATES: "sensor_msgs/msg/PointCloud2",
            topics.DECISION: "diagnostic_msgs/msg/DiagnosticArray",
            robot.command.name: robot.command.type if stamped else robot.command.unstamped_type,
            topics.OUTCOME: "sensor_msgs/msg/JointState",
            LEDGER_LINES: "std_msgs/msg/String",
            RUN: "std_msgs/msg/String",
        }

    def write(self, writer: Any) -> dict[str, int]:
        """Write all of it, in the order of its times."""
        typesys = _rosbags().typesys
        store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
        inputs = self.inputs.topics if self.inputs else []
        try:
            connections = [
                writer.add_connection(_absolute(topic), kind, typestore=store)
                for topic, kind in (*inputs, *self.kinds.items())
            ]
        except KeyError as error:
            raise ValueError(f"message type {error} is none of ROS 2 Jazzy's, and cannot be exported") from None
        by_name = dict(zip(self.kinds, connections[len(inputs) :], strict=True))
        counts: dict[str, int] = {connection.topic: 0 for connection in connections}
        shift, latest, resumed = 0, 0, False
        for time_ns, topic, data in self._entries():
            if topic == BEGIN:
                resumed = True
                continue
            if resumed and time_ns + shift < latest:  # in lock-step, time began at 0 again
                shift = latest + SECOND - time_ns
            resumed = False
            if counts[RUN] == 0:
                writer.write(by_name[RUN], time_ns, serialize_message(String(data=json.dumps(self._about()))))
                counts[RUN] += 1
            latest = max(latest, time_ns + shift)
            connection = connections[topic] if isinstance(topic, int) else by_name[topic]
            writer.write(connection, time_ns + shift, _exact(data, connection.msgtype, store))
            counts[connection.topic] += 1
        return counts

    def _about(self) -> dict[str, Any]:
        run, header = self.run, self.journal.header
        return {
            "format": FORMAT,
            "config": run.config_file.read_text(),
            "phases": PHASES,
            "channels": {c.name: _absolute(c.topic or c.name) for c in self.settings.robot.channels},
            **{name: getattr(run, name) for name in ("kind", "mode", "clock", "continuous", "seed", "robot_id")},
            **{name: header[name] for name in ("robot", "layout", "safety_sha256")},
        }

    def _entries(self) -> Iterator[tuple[int, int | str, bytes]]:
        """(time [ns], number of an input or name of another topic, message)."""
        records = (record for piece in self.journal.pieces() for record in piece)
        lines = self._ledger()
        record, line = next(records, None), next(lines, None)

        def before(sequence: float, time_ns: int | None) -> Iterator[tuple[int, int | str, bytes]]:
            """The decisions up to that number, and the lines of the ledger that were written until then."""
            nonlocal record, line
            while record is not None and record["sequence"] <= sequence:
                at = int(record["stamp_ns"]) if time_ns is None else time_ns
                while line is not None and line[0] < record["sequence"]:
                    yield at, LEDGER_LINES, line[1]
                    line = next(lines, None)
                yield from self._decision(at, record)
                record = next(records, None)

        last = 0
        for last, topic, data in self.inputs or ():
            if topic == MARK:
                yield from before(number(data), last)
            else:
                yield last, topic, data
        for entry in before(np.inf, None):
            last = entry[0]
            yield entry
        while line is not None:
            yield last, LEDGER_LINES, line[1]
            line = next(lines, None)

    def _ledger(self) -> Iterator[tuple[int, bytes]]:
        """(decision after which it was written, line)."""
        path, after = self.run.folder / LEDGER, -1
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    event = json.loads(text)
                    after = max(after, int(event["sequence"])) if event["event"] == "counters" else after
                except (ValueError, TypeError, KeyError):
                    pass  # a torn last line: it is as it is
                yield after, serialize_message(String(data=text.rstrip("\n")))

    def _decision(self, time_ns: int, record: np.void) -> Iterator[tuple[int, str, bytes]]:
        flags, index = record["flags"], int(record["executed"])
        certified, band, plan, offered = ((flags & bit) > 0 for bit in (CERTIFIED, BAND, PLAN, OFFERED))
        candidates = CandidateSet(
            int(record["id"]), int(record["stamp_ns"]), int(record["episode"]), record["observation"],
            record["actions"], certified, offered, band, plan, record["margin"], np.zeros(len(flags), np.uint8),
        )  # fmt: skip
        reason, intervened = REASONS[record["reason"]], bool(flags[index] & INTERVENED)
        state = STATE_AFTER.get(reason, State.INTERVENING if intervened else State.BACKUP)
        action, stamp_ns = record["actions"][index], int(record["stamp_ns"])
        decision = Decision(
            int(record["sequence"]), candidates.id, candidates.episode, stamp_ns, action, index,
            VERDICTS[record["verdict"]], reason, "", state, intervened, candidates,
        )  # fmt: skip
        outcome = JointState(name=list(OUTCOME), position=[float(record[name]) for name in OUTCOME])
        outcome.header.stamp = native.stamp_of(stamp_ns)
        yield time_ns, topics.CANDIDATES, serialize_message(self.codec.encode(candidates))
        yield time_ns, topics.DECISION, serialize_message(tables.encode_decision(decision))
        yield time_ns, self.settings.robot.command.name, serialize_message(self.commands.encode(action, stamp_ns))
        yield time_ns, topics.OUTCOME, serialize_message(outcome)


# --- and back ---------------------------------------------------------------------------------------------------------


@dataclass
class Rewards:
    """How many rewards were computed from what was measured, and how they compare with those of the run."""

    computed: int = 0
    differing: int = 0  # bit by bit
    unmeasured: int = 0  # transitions whose inputs are not in the bag: nothing is learnt from them


class Bag:
    """A bag that `export` wrote. Raises ValueError in one line if it is none, or none that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reader() as reader:
            first = next((data for c, _, data in self._raw(reader) if c.topic == RUN), None)
        try:
            if first is None:
                raise ValueError("no message on /run")
            self.about: dict[str, Any] = json.loads(deserialize_message(first, String).data)
            if self.about["format"] != FORMAT:
                raise ValueError(f"its format is {self.about['format']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: was not written by safe-support-ql bag of this version ({error})") from None

    def check(self, settings: Config, continuous: bool) -> None:
        """Raises ValueError if this bag is of another robot, action space or safety configuration."""
        found = tuple(self.about.get(name) for name in ("robot", "continuous", "safety_sha256"))
        wanted = (settings.robot.name, continuous, settings.safety_hash)
        names = ("robot", "action space", "safety configuration")
        odd = [name for name, a, b in zip(names, found, wanted, strict=True) if a != b]
        if odd:
            raise ValueError(
                f"{self.path}: is of another {odd[0]} ({found[0]}); give bags of one robot and one setting"
            )

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Reader]:
        rosbag2 = _rosbags().rosbag2
        try:
            reader: Reader = rosbag2.Reader(self.path)
            reader.open()
        except Exception as error:  # a damaged file shows itself in many ways
            raise ValueError(f"{self.path}: cannot be read as a bag ({error}); is it complete?") from None
        try:
            yield reader
        finally:
            reader.close()

    def _raw(self, reader: Reader) -> Iterator[tuple[Any, int, bytes]]:
        try:
            yield from reader.messages()
        except Exception as error:
            raise ValueError(f"{self.path}: is damaged or cut off ({type(error).__name__}: {error})") from None

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time [ns], message), in the order of time. Raises ValueError if not all are there."""
        with self._reader() as reader:
            found = 0
            for connection, time_ns, data in self._raw(reader):
                found += 1
                yield connection.topic, time_ns, data
            if found < (said := reader.message_count):
                raise ValueError(f"{self.path}: holds {found} of {said} messages: it was cut off; export it again")

    def records(self, robot: Robot, rewards: Rewards, refused: dict[str, int], size: int = 256) -> Iterator[Any]:
        """Journal records, up to `size` at a time, with the rewards of `robot` for what was measured.

        Counts into `rewards`, and into `refused` why messages were refused, as by the gate.
        """
        walk = _Walk(self.about, robot, rewards, refused)
        found: list[NDArray[np.void]] = []
        for topic, _, data in self.messages():
            found += walk.hear(topic, data)
            if len(found) >= size:
                yield np.concatenate(found)
                found = []
        found += walk.rest()
        if found:
            yield np.concatenate(found)

    def heard(self, robot: Robot, refused: dict[str, int]) -> Iterator[Heard]:
        """The messages of the channels and the beginnings of episodes, for a replay; `refused` as for `records`."""
        codecs = {self.about["channels"][channel.name]: native.ChannelCodec(channel) for channel in robot.channels}
        key = -1
        for topic, now_ns, data in self.messages():
            with _refusing(refused):
                if (codec := codecs.get(topic)) is not None:
                    vector, stamp_ns = codec.read(deserialize_message(data, codec.type))
                    yield Heard(now_ns, codec.channel.name, vector, now_ns if stamp_ns is None else stamp_ns)
                elif topic == _absolute(topics.EPISODE):
                    episode = tables.decode_episode(deserialize_message(data, DiagnosticArray))
                    if episode.key != key:
                        key = episode.key
                        yield Heard(now_ns, episode=episode.id)

    def executed(self, robot: Robot, refused: dict[str, int]) -> list[Executed]:
        """What was executed, in the order of stamps; `refused` as for `records`."""
        found = []
        for topic, _, data in self.messages():
            if topic == _absolute(topics.DECISION):
                with _refusing(refused):
                    verdict = tables.decode_decision(
                        deserialize_message(data, DiagnosticArray), len(robot.action_names)
                    )
                    found.append(Executed(verdict.stamp_ns, verdict.action, verdict.state == State.NOMINAL.value))
        return sorted(found, key=lambda one: one.stamp_ns)


@contextlib.contextmanager
def _refusing(refused: dict[str, int]) -> Iterator[None]:
    """Count a message that cannot be used, by the reason."""
    try:
        yield
    except (ValueError, KeyError) as error:
        refused[str(error)] = refused.get(str(error), 0) + 1


class _Walk:
    """Joins the messages of a bag to records, and computes their rewards as nodes/task.py does."""

    def __init__(self, about: dict[str, Any], robot: Robot, rewards: Rewards, refused: dict[str, int]) -> None:
        self.robot, self.rewards, self.refused = robot, rewards, refused
        self.phases = [PHASES.index(name) for name in about["phases"]]
        channels = {channel.name: native.ChannelCodec(channel) for channel in robot.channels}
        self.channels = {about["channels"][name]: codec for name, codec in channels.items()}
        self.codec = CandidateCodec(robot, about["continuous"])
        self.type = record_type(self.codec.d, self.codec.k, self.codec.a)
        self.heard = heard.Heard(robot.channels)
        self.episode = -1  # key
        self.sets: OrderedDict[int, CandidateSet] = OrderedDict()
        self.outcomes: OrderedDict[int, dict[str, float]] = OrderedDict()
        self.queue: deque[tuple[Verdict, int]] = deque()  # decision, and how many messages came before it
        self.before: tuple[int, Floats, dict[str, Floats]] | None = None  # number, action and inputs of the last one
        self.count = 0

    def hear(self, topic: str, data: bytes) -> list[NDArray[np.void]]:
        """Take a message; the records that are complete now."""
        self.count += 1
        with _refusing(self.refused):
            if topic in self.channels:
                codec = self.channels[topic]
                vector, stamp_ns, _ = native.admitted(self.robot, codec, deserialize_message(data, codec.type))
                self.heard.add(codec.channel.name, stamp_ns or 0, vector)
            elif topic == _absolute(topics.CANDIDATES):
                candidates = self.codec.decode(deserialize_message(data, PointCloud2))
                self.sets[candidates.id] = replace(candidates, observation=candidates.observation.copy())
            elif topic == _absolute(topics.DECISION):
                verdict = tables.decode_decision(deserialize_message(data, DiagnosticArray), self.codec.a)
                self.queue.append((verdict, self.count))
            elif topic == _absolute(topics.OUTCOME):
                message = deserialize_message(data, JointState)
                outcome = dict(zip(message.name, message.position, strict=True))
                self.outcomes[int(outcome["sequence"])] = outcome
            elif topic == _absolute(topics.EPISODE):
                key = tables.decode_episode(deserialize_message(data, DiagnosticArray)).key
                if key != self.episode:  # the simulator put it somewhere else
                    made, self.episode = self.rest(), key
                    self.heard.forget()
                    return made
        return self._take(late=False)

    def rest(self) -> list[NDArray[np.void]]:
        """The records that nothing more comes for."""
        return self._take(late=True)

    def _take(self, late: bool) -> list[NDArray[np.void]]:
        made = []
        while self.queue:
            verdict, since = self.queue[0]
            parts = verdict.id in self.sets and verdict.sequence in self.outcomes
            if not (late or self.count - since > AHEAD or (parts and self.heard.complete(verdict.stamp_ns))):
                break
            self.queue.popleft()
            if parts:
                made.append(self._record(verdict, self.sets.pop(verdict.id), self.outcomes.pop(verdict.sequence)))
        for waiting in (self.sets, self.outcomes):
            while len(waiting) > heard.KEPT + len(self.queue):
                waiting.popitem(last=False)
        return made

    def _record(self, verdict: Verdict, candidates: CandidateSet, outcome: dict[str, float]) -> NDArray[np.void]:
        inputs, before = self.heard.at(verdict.stamp_ns), self.before
        first, reward = bool(outcome["first"]), float(outcome["reward"])
        action = verdict.action.astype(np.float64)
        self.before = (verdict.sequence, action, inputs) if inputs else None
        if not first and (before is None or not inputs):
            first = True
            self.rewards.unmeasured += 1
        elif not first and before is not None and verdict.sequence == before[0] + 1:
            reward = self.robot.task(before[2], before[1], inputs)[0]
            self.rewards.computed += 1
            self.rewards.differing += np.float32(reward) != np.float32(outcome["reward"])
        arrived = Arrived(
            self.phases[int(outcome["phase"])], first, bool(outcome["terminated"]), bool(outcome["truncated"]), reward
        )
        return make_record(self.type, Joined(verdict, candidates, arrived))
