"""Bags: what a run recorded opens in other tools and comes back as it was, and what is none is refused in one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader

from safe_support_ql import bringup, cli, config
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.nodes import native, tables
from safe_support_ql.nodes.bags import AHEAD, Bag, Rewards, export
from safe_support_ql.recording.files import INPUTS, JOURNAL, LEDGER
from safe_support_ql.recording.inputs import MARK, InputsReader, InputsWriter
from safe_support_ql.recording.journal import JournalReader, JournalWriter, pack
from safe_support_ql.recording.ledger import LedgerWriter
from safe_support_ql.safety.candidates import candidate_layout
from safe_support_ql.safety.gate import REASONS, VERDICTS, Gate
from safe_support_ql.simulation.simulation import Simulation

FIELDS = ("sequence", "id", "stamp_ns", "episode", "terminated", "truncated", "verdict", "reason", "phase", "executed",
          "observation", "actions", "flags", "margin")  # fmt: skip
Record = Callable[..., bringup.Run]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Record episodes in lock-step as the recorder does: journal, inputs and a ledger."""

    def recorded(robot: str = "diff_drive", episodes: int = 2, continuous: bool = False, **changes: object):
        settings = config.load_robot(robot, {name.replace("__", "."): value for name, value in changes.items()})
        run = bringup.create_run(tmp_path / "runs", settings, continuous=continuous)
        robot_ = settings.robot
        sim, gate = Simulation(robot_), Gate(robot_, settings.gate, continuous, 0)
        policy, codecs = BehaviorPolicy(settings.behavior, robot_, 0), [native.ChannelCodec(c) for c in robot_.channels]
        header = {
            "observation": len(robot_.observation_names), "candidates": gate.support.size,
            "action": len(robot_.action_names), "robot": robot, "layout": candidate_layout(robot_, continuous),
            "safety_sha256": settings.safety_hash,
        }  # fmt: skip
        journal = JournalWriter(run.folder / JOURNAL, header)
        topics = [(c.channel.topic or c.channel.name, c.channel.type) for c in codecs]
        inputs = InputsWriter(run.folder / INPUTS, [*topics, ("episode", "diagnostic_msgs/msg/DiagnosticArray")])
        ledger = LedgerWriter(run.folder / LEDGER)
        for episode in range(1, episodes + 1):
            start, first, begun = episode * 10**12, True, False
            for outcome, decision in steps(sim, gate, policy, episode, episode):
                if not begun:
                    told = tables.encode_episode(
                        tables.Episode(episode, episode, "collection", episode, "robot", start)
                    )
                    inputs.message(start, len(codecs), serialize_message(told))
                begun = True
                at = start + decision.stamp_ns
                for number, codec in enumerate(codecs):
                    if not codec.channel.latched or outcome.first:
                        message = codec.encode(sim.measured[codec.channel.name], at)
                        inputs.message(at, number, serialize_message(message))
                inputs.mark(at, decision.sequence)
                if decision.candidates is None:
                    continue
                journal.append(
                    pack(
                        journal.type, decision.sequence, replace(decision.candidates, stamp_ns=at), decision.index,
                        VERDICTS.index(decision.verdict), REASONS.index(decision.reason), 0, outcome.reward, first,
                        outcome.terminated, outcome.truncated, decision.intervention,
                    )
                )  # fmt: skip
                first = False
        ledger.append("note", {"last": "line"})
        for file in (journal, inputs, ledger):
            file.close()
        sim.close()
        return run

    return recorded


def read(path: Path) -> tuple[np.ndarray, Rewards, dict[str, int]]:
    bag, rewards, refused = Bag(path), Rewards(), dict[str, int]()
    robot = config.parse_text(bag.about["config"], "bag").robot
    return np.concatenate(list(bag.records(robot, rewards, refused))), rewards, refused


@pytest.mark.parametrize(("robot", "continuous"), [("diff_drive", False), ("cart_pole", True)])
def test_every_record_comes_back_with_rewards_that_are_equal_bit_by_bit(
    record: Record, tmp_path: Path, robot: str, continuous: bool
) -> None:
    run = record(robot, continuous=continuous)
    export(*bringup.read_run(run.folder), tmp_path / "bag")
    known = JournalReader(run.folder / JOURNAL).read()
    found, rewards, refused = read(tmp_path / "bag")
    for name in FIELDS:
        assert found[name].tobytes() == known[name].tobytes(), name
    assert found["first"].tolist() == known["first"].tolist() and not refused
    inside = known["first"] == 0
    assert found["reward"][inside].tobytes() == known["reward"][inside].tobytes()
    assert rewards == Rewards(computed=int(inside.sum())) and rewards.computed > 20


def test_other_readers_find_the_sensors_as_they_were_sent(record: Record, tmp_path: Path) -> None:
    run = record(episodes=1)
    counts, damaged = export(*bringup.read_run(run.folder), tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:  # with the definitions in the bag
        types = {c.topic: c.msgtype for c in reader.connections}
        messages = [(c.topic, t, reader.deserialize(data, c.msgtype)) for c, t, data in reader.messages()]
    assert types["/odom"] == "nav_msgs/msg/Odometry" and types["/cmd_vel"] == "geometry_msgs/msg/TwistStamped"
    assert Counter(topic for topic, _, _ in messages) == counts and damaged == 0
    records = JournalReader(run.folder / JOURNAL).read()
    by = {name: [m for topic, _, m in messages if topic == name] for name in types}
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in by["/decision"]]
    assert stamps == records["stamp_ns"].tolist()
    executed = records["actions"][np.arange(len(records)), records["executed"]]
    assert [m.twist.linear.x for m in by["/cmd_vel"]] == executed[:, 0].tolist()
    assert by["/scan"][0].ranges.dtype == np.float32 and by["/odom"][0].child_frame_id == "base_link"
    assert json.loads(by["/run"][0].data)["robot"] == "diff_drive" and messages[0][0] == "/run"
    assert json.loads(by["/ledger"][-1].data)["last"] == "line"
    times = [t for _, t, _ in messages]
    assert times == sorted(times)


def test_a_robot_with_frames_of_its_own(record: Record, tmp_path: Path) -> None:
    own = {"parameters__odom_frame": "robot1/odom", "parameters__base_frame": "robot1/base", "run__ticks": 100}
    run = record(episodes=1, **own)
    export(*bringup.read_run(run.folder), tmp_path / "bag")
    _, rewards, refused = read(tmp_path / "bag")
    assert rewards.computed > 5 and rewards.differing == 0 and not refused
    other = config.load_robot("diff_drive").robot
    rewards, refused = Rewards(), {}
    found = np.concatenate(list(Bag(tmp_path / "bag").records(other, rewards, refused)))
    assert rewards.computed == 0 and rewards.unmeasured > 5 and found["first"].all()
    assert any("header.frame_id is 'robot1/odom'" in why for why in refused)


def test_a_sensor_message_that_is_heard_after_its_decision_still_counts(record: Record, tmp_path: Path) -> None:
    run = record(episodes=1)
    entries = list(InputsReader(run.folder / INPUTS))
    topics = InputsReader(run.folder / INPUTS).topics
    (run.folder / INPUTS).unlink()
    late = InputsWriter(run.folder / INPUTS, topics)
    delays = [5_000_000 if number == 0 else 0 for _, number, _ in entries]
    moved = sorted(((t + d, i, n, data) for i, ((t, n, data), d) in enumerate(zip(entries, delays, strict=True))))
    for time_ns, _, number, data in moved:
        late.message(time_ns, number, data)
    late.close()
    export(*bringup.read_run(run.folder), tmp_path / "bag")
    assert AHEAD > 0 and read(tmp_path / "bag")[1].differing == 0


def test_a_resumed_run_goes_on_in_the_log_where_time_began_anew(record: Record, tmp_path: Path) -> None:
    run = record(episodes=1)
    path, known = run.folder / INPUTS, JournalReader(run.folder / JOURNAL)
    entries, records = list(InputsReader(path)), known.read()
    resumed = InputsWriter(path, InputsReader(path).topics)
    journal = JournalWriter(run.folder / JOURNAL, known.header)
    last = int(records["sequence"][-1])
    told = tables.encode_episode(tables.Episode(77, 2, "collection", 1, "robot", entries[0][0]))
    for at, number, data in entries:
        if number == MARK:
            resumed.mark(at, last + 1 + int.from_bytes(data, "little"))
        else:
            resumed.message(at, number, serialize_message(told) if number == 3 else data)
    records = records.copy()
    records["sequence"] += np.uint64(last + 1)
    records["id"] += np.uint64(10**6)
    journal.append(records)
    journal.close()
    resumed.close()
    export(*bringup.read_run(run.folder), tmp_path / "bag")
    found, rewards, _ = read(tmp_path / "bag")
    assert np.diff(found["sequence"].astype(int)).min() > 0 and len(found) == 2 * len(records)
    assert rewards == Rewards(computed=2 * int((records["first"] == 0).sum()))


def test_a_replay_in_lock_step_decides_as_the_run_did_and_a_silent_lidar_stops_it(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(episodes=2)
    bag = str(tmp_path / "bag")
    export(*bringup.read_run(run.folder), Path(bag))
    text = said(capsys, "replay", bag)[1]
    decisions = len(JournalReader(run.folder / JOURNAL).read())
    passed = [word for word in text.splitlines()[0].replace(";", ",").split(",") if "nominal" in word]
    assert "0 stops, 0 of them false" in text and int(passed[0].split()[-1]) >= decisions - 4, text

    path = run.folder / INPUTS
    entries, topics = list(InputsReader(path)), InputsReader(path).topics
    path.unlink()
    silent = InputsWriter(path, topics)
    begin = entries[0][0] + 2_000_000_000
    for at, number, data in entries:
        if number != 1 or not begin <= at < begin + 500_000_000:  # the lidar is silent for half a second
            silent.message(at, number, data)
    silent.close()
    export(*bringup.read_run(run.folder), tmp_path / "silent")
    text = said(capsys, "replay", str(tmp_path / "silent"))[1]
    stop = text.splitlines()[2].split()
    assert stop[4] == "yes" and "scan" in text and float(stop[1]) <= 0.13 and float(stop[2]) >= 0.5, text


def test_a_run_of_an_older_version_is_exported_without_sensors(record: Record, tmp_path: Path) -> None:
    run = record(episodes=1)
    (run.folder / INPUTS).unlink()
    counts, _ = export(*bringup.read_run(run.folder), tmp_path / "bag")
    assert "/odom" not in counts and counts["/decision"] == len(JournalReader(run.folder / JOURNAL).read())
    assert read(tmp_path / "bag")[1].computed == 0


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    out = capsys.readouterr()
    return int(left.value.code or 0), out.err.splitlines()[-1] if left.value.code else out.out


def test_what_cannot_be_learnt_from_is_refused_in_one_line(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, other = record(episodes=1), record("cart_pole", episodes=1)
    bag, foreign = str(tmp_path / "bag"), str(tmp_path / "foreign")
    assert said(capsys, "bag", str(run.folder), "--out", bag)[0] == 0
    assert said(capsys, "bag", str(other.folder), "--out", foreign)[0] == 0
    before = set((tmp_path / "runs").iterdir())
    status, text = said(capsys, "bag", str(run.folder), "--out", bag)
    assert status == 2 and text == f"error: {bag}: exists already; give another --out"
    status, text = said(capsys, "train", "--from-bag", bag, foreign)
    assert status == 2 and f"{foreign}: is of another robot (cart_pole)" in text
    status, text = said(capsys, "train", "--from-bag", bag, "--set", "parameters.speed=0.4")
    assert status == 2 and "another safety configuration" in text
    status, text = said(capsys, "train", "--from-bag", bag, "--ticks", "5")
    assert status == 2 and "--ticks does not go with --from-bag" in text
    status, text = said(capsys, "train", "--from-bag", str(run.folder))
    assert status == 2 and "cannot be read as a bag" in text
    file = next(Path(bag).glob("*.mcap"))
    content = file.read_bytes()
    for share in (0.01, 0.5, 0.9, 0.999):
        file.write_bytes(content[: int(share * len(content))])
        status, text = said(capsys, "train", "--from-bag", bag)
        assert status == 2 and text.startswith(f"error: {bag}: "), (share, text)
    assert set((tmp_path / "runs").iterdir()) == before


def test_a_policy_is_learnt_from_bags_alone(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"learner__extraction_updates": 20, "learner__updates_per_tick": 0.2}
    runs = [record("cart_pole", episodes=1, **few) for _ in range(2)]
    for number, run in enumerate(runs):
        said(capsys, "bag", str(run.folder), "--out", f"bag{number}")
    status, text = said(capsys, "train", "--from-bag", "bag0", "bag1", "--runs-dir", "learnt")
    assert status == 0 and "0 of them other than in the run" in text, text
    learnt = next((tmp_path / "learnt").iterdir())
    manifest = json.loads((learnt / "policy.json").read_text())
    assert manifest["training"]["decisions"] == sum(len(JournalReader(r.folder / JOURNAL).read()) for r in runs)
    assert said(capsys, "evaluate", str(learnt), "--episodes", "2", "--workers", "1")[0] == 0
