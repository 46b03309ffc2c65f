"""The graph of nodes, its environment, its processes, and what is read back from the folder of a run."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql import bringup, panel, summary
from safe_support_ql.bringup import NODES, STOP_ORDER, Processes, Run
from safe_support_ql.cli.ledger import print_report
from safe_support_ql.safety.journal import JournalWriter
from safe_support_ql.safety.ledger import LedgerWriter

ROOT = Path(__file__).resolve().parents[1]


def test_the_monitor_starts_and_stops_first_and_the_recorder_stops_last() -> None:
    assert NODES[0].name == "safety_monitor" and NODES[-1].name == "simulator"
    assert STOP_ORDER[:2] == ("safety_monitor", "simulator") and STOP_ORDER[-1] == "recorder"
    assert set(STOP_ORDER) == {spec.name for spec in NODES}
    for spec in NODES:
        assert (ROOT / "safe_support_ql" / "nodes" / f"{spec.name}.py").is_file()


def test_only_the_learner_may_die(tmp_path: Path) -> None:
    assert [spec.name for spec in NODES if spec.restarts] == ["learner"]


@pytest.mark.parametrize(
    ("policy", "node"), [("behavior", "behavior_policy"), ("none", None), ("policy.onnx", "inference")]
)
def test_simulate_has_one_policy(tmp_path: Path, policy: str, node: str | None) -> None:
    nodes = Run(tmp_path, kind="simulate", policy=policy).nodes
    assert set(nodes) - {"safety_monitor", "recorder", "simulator"} == ({node} if node else set())


def test_every_parameter_is_declared(tmp_path: Path) -> None:
    """A name that no node declares would be ignored by ROS without a word."""
    from safe_support_ql.nodes.lifecycle import PARAMETERS

    for spec in NODES:
        declared = {item.name: item for item in PARAMETERS[spec.name]}
        for name, value in bringup.parameters(spec.name, Run(tmp_path), summary.Progress()).items():
            assert type(value) is type(declared[name].default), name


def test_a_run_stays_on_this_machine() -> None:
    wanted, unwanted = bringup.ros_environment({"ROS_STATIC_PEERS": "robot.lab", "ROS_DISCOVERY_SERVER": "robot:1"}, 42)
    assert wanted["ROS_DOMAIN_ID"] == "42" and wanted["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert sorted(unwanted) == ["ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS"]
    assert Path(wanted["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


def test_what_the_user_set_stays() -> None:
    own = {"ROS_DOMAIN_ID": "7", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "SHM",
           "FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml", "ROS_STATIC_PEERS": "robot.lab"}  # fmt: skip
    assert bringup.ros_environment(own, 42) == ({}, [])


def test_two_runs_get_two_domains() -> None:
    first, lock = bringup.claim_domain()
    second, other = bringup.claim_domain()
    try:
        assert first != second and {first, second} <= set(range(1, 102))
    finally:
        lock.release()
        other.release()


def test_a_closed_terminal_stops_a_run_but_not_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    for inherited, expected in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
        monkeypatch.setattr(signal, "getsignal", lambda number, inherited=inherited: inherited)
        assert (signal.SIGHUP in bringup.stop_signals()) is expected
        assert {signal.SIGINT, signal.SIGTERM} <= set(bringup.stop_signals())


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    from safe_support_ql import config

    settings = config.load_robot("diff_drive")
    folders = {bringup.create_run(tmp_path, settings).folder for _ in range(3)}
    assert len(folders) == 3


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Processes whose 'nodes' are three-line modules."""
    nodes = tmp_path / "toys" / "nodes"
    nodes.mkdir(parents=True)
    (tmp_path / "toys" / "__init__.py").touch()
    (nodes / "__init__.py").touch()
    (nodes / "polite.py").write_text("import sys, time\nprint(sys.argv[1:])\ntime.sleep(60)\n")
    (nodes / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(60)\n"
    )
    (nodes / "broken.py").write_text("raise SystemExit('[ERROR] [1.0] [broken]: key x must be y')\n")
    monkeypatch.setattr(bringup, "PACKAGE", "toys")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Processes(tmp_path)


def _said(children: Processes, node: str) -> str:
    end = time.monotonic() + 20
    while not children.last_words(node) and time.monotonic() < end:
        time.sleep(0.05)
    return children.last_words(node)


def test_processes_get_parameters_and_a_session_of_their_own(children: Processes) -> None:
    children.start("polite", {"path": "a b", "n": 1, "flag": True}, {"odom": "odom_true"})
    assert 'path:="a b"' in _said(children, "polite") and "n:=1" in _said(children, "polite")
    assert "flag:=true" in _said(children, "polite") and "odom:=odom_true" in _said(children, "polite")
    assert os.getsid(children.pid("polite")) == children.pid("polite")  # Ctrl-C reaches the parent alone
    children.stop(["polite"])
    assert not children.alive("polite") and not children.dead()


def test_who_does_not_stop_is_killed(children: Processes) -> None:
    children.start("stubborn", {})
    _said(children, "stubborn")
    before = time.monotonic()
    children.stop(["stubborn"], patience_s=0.5)
    assert not children.alive("stubborn") and 0.5 <= time.monotonic() - before < 10


def test_a_death_is_told_with_the_last_error(children: Processes) -> None:
    children.start("broken", {})
    children.start("polite", {})
    assert _said(children, "broken") == "key x must be y"
    _said(children, "polite")
    os.kill(children.pid("polite"), signal.SIGKILL)
    end = time.monotonic() + 20
    while len(children.dead()) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert children.dead() == ["broken", "polite"]
    assert children.how_it_ended("broken") == "exit status 1"
    assert children.how_it_ended("polite") == "killed by SIGKILL"


# --- what is read back -----------------------------------------------------------------------------------------------


def _counters(phase: str, ticks: int, at: float, **more: object) -> tuple[str, dict[str, object]]:
    verdicts = {"certified": ticks, "certified_band": 0, "plan_held": 0, "no_proof": 0}
    values = {"control_ticks": ticks, "physics_steps": 24 * ticks, "seconds": ticks / 10, "unsafe_visits": 0}
    values |= {"decisions": ticks, "interventions": 0, "empty_supports": 0, "sequence": ticks - 1}
    return "counters", {"time": at, "phase": phase, "verdicts": verdicts, **values, **more}


def _episode(phase: str, number: int, seed: int, reached: bool) -> tuple[str, dict[str, object]]:
    end = {"reached": reached, "terminated": reached, "return": 2.0 * reached}
    return "episode", {"phase": phase, "episode": number, "seed": seed, **end}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The folder of a run that was stopped while it evaluated, after a collection of 100 ticks."""
    ledger = LedgerWriter(tmp_path / "ledger.jsonl")
    events = [
        ("run_start", {"time": 0.0}), ("phase", {"time": 1.0, "phase": "collection"}),
        _counters("collection", 40, 2.0), _episode("collection", 1, 5_000_000, True),
        _counters("collection", 100, 3.0), _counters("collection", 100, 60.0),
        ("gap", {"first": 98, "last": 99, "why": "blind"}), ("phase", {"time": 61.0, "phase": "evaluation_behavior"}),
        _episode("evaluation_behavior", 3, 900_000_000, True), _episode("evaluation_behavior", 4, 900_000_001, False),
        _counters("evaluation_behavior", 50, 63.0, interventions=5),
    ]  # fmt: skip
    for event, fields in events:
        ledger.append(event, fields)
    ledger.close()
    journal = JournalWriter(tmp_path / "journal.bin", {"observation": 1, "candidates": 2, "action": 1})
    records = np.zeros(98, journal.type)
    records["sequence"], records["episode"] = np.arange(98), 5
    journal.append(records)
    journal.close()
    return tmp_path


def test_a_resumed_run_repeats_no_number_and_no_arena(recorded: Path) -> None:
    where = summary.progress(recorded)
    assert (where.ticks, where.first_sequence, where.first_episode) == (100, 100, 7)
    assert where.training_seed == 5_000_002  # 5 000 001 was begun and cut off
    assert where.evaluated == {"evaluation_behavior": 2}
    assert where.collected_at == 3.0  # counters go on while the learner extracts


def test_a_number_that_was_counted_is_not_used_again(recorded: Path) -> None:
    """A power loss may take the end of the journal and leave that of the ledger."""
    ledger = LedgerWriter(recorded / "ledger.jsonl")
    ledger.append(*_counters("evaluation_behavior", 50, 64.0, sequence=120))
    ledger.close()
    assert summary.progress(recorded).first_sequence == 121


def test_a_ledger_that_grows_while_it_is_read_is_not_damaged(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole, writes = recorded / "ledger.jsonl", Path.read_bytes, [1]

    def read_bytes(self: Path) -> bytes:
        content = whole(self)
        if self == path and writes[0]:
            writes[0] -= 1
            newest = json.loads(content.splitlines()[-1])
            with open(path, "ab") as file:
                file.write((json.dumps({**newest, "seq": newest["seq"] + 1}) + "\n").encode())
        return content

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert summary.progress(recorded).ticks == 100
    assert not writes[0]
    monkeypatch.undo()
    with open(path, "ab") as file:
        file.write(b"no event\n")
    with pytest.raises(ValueError, match="is damaged"):
        summary.progress(recorded)


def test_a_ledger_that_lost_its_beginning_is_damaged(recorded: Path) -> None:
    path = recorded / "ledger.jsonl"
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    with pytest.raises(ValueError, match="begins with event 1; those before it are missing"):
        summary.verify(recorded, "r", 5, True)


def test_a_policy_trained_on_more_is_evaluated_anew(recorded: Path) -> None:
    ledger = LedgerWriter(recorded / "ledger.jsonl")
    ledger.append("phase", {"time": 70.0, "phase": "collection"})
    ledger.close()
    assert summary.progress(recorded).evaluated == {}
    assert summary.summarise(recorded, "r", 5, True)["evaluation"] == {}


def test_the_summary_counts_what_the_ledger_says(recorded: Path) -> None:
    found = summary.summarise(recorded, "r", 5, must_reach=True)
    assert found["control_ticks"] == 150 and found["unsafe_visits"] == 0 and found["gaps"] == 2
    row = found["evaluation"]["behavior"]
    assert (row["episodes"], row["success_rate"], row["mean_return"], row["intervention_rate"]) == (2, 0.5, 1.0, 0.1)
    assert found["wall_s"] == 63.0 and found["ticks_per_s"] == pytest.approx(100 / 2.0)
    assert found["unsafe_rate_upper95_per_hour"] == pytest.approx(2.9957 / (15 / 3600), rel=1e-4)
    assert summary.summarise(recorded, "r", 5, must_reach=False)["evaluation"]["behavior"]["success_rate"] == 0.5


def test_unsafe_episodes_are_bounded_beside_the_rate(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trial is an episode: two visits in one are one, and one that a stop cut off counts if it was unsafe."""
    safe = summary.summarise(recorded, "r", 5, True)
    assert safe["clock"] is None and safe["phases"]["evaluation_behavior"]["unsafe_episodes"] == 0
    assert safe["phases"]["evaluation_behavior"]["unsafe_episode_upper95"] == pytest.approx(1 - 0.05**0.5)
    ledger = LedgerWriter(recorded / "ledger.jsonl")
    visit = ("visit", {"phase": "evaluation_behavior", "visits": 1, "time": 64.0, "what": "clearance"})
    for event, fields in (
        ("run_start", {"time": 63.5, "clock": "realtime"}), visit, visit,
        _episode("evaluation_behavior", 5, 900_000_002, False), _episode("evaluation_behavior", 6, 900_000_003, True),
        visit, _counters("evaluation_behavior", 80, 66.0, unsafe_visits=3),
    ):  # fmt: skip
        ledger.append(event, fields)
    ledger.close()
    report = summary.verify(recorded, "r", 5, True)
    row = report.summary["phases"]["evaluation_behavior"]
    assert (row["episodes"], row["unsafe_episodes"], row["unsafe_visits"]) == (5, 2, 3)
    # The bound is where at most 2 of 5 have a chance of 5 %.
    p = row["unsafe_episode_upper95"]
    assert sum(math.comb(5, k) * p**k * (1 - p) ** (5 - k) for k in range(3)) == pytest.approx(0.05)
    print_report(report, recorded)
    printed = capsys.readouterr().out
    assert "clock: real time" in printed and max(map(len, printed.splitlines()[2:])) <= 80
    assert ["evaluation_behavior", "5", "2", f"{p:.2g}"] in [line.split() for line in printed.splitlines()]


def test_an_unsafe_episode_that_a_stop_cut_off_is_another_than_the_next(recorded: Path) -> None:
    ledger = LedgerWriter(recorded / "ledger.jsonl")
    visit = ("visit", {"phase": "evaluation_behavior", "visits": 1, "time": 64.0, "what": "clearance"})
    for event, fields in (
        ("run_start", {"time": 63.5}), visit, ("run_start", {"time": 65.0}), visit,
        _episode("evaluation_behavior", 5, 900_000_002, False),
    ):  # fmt: skip
        ledger.append(event, fields)
    ledger.close()
    row = summary.summarise(recorded, "r", 5, True)["phases"]["evaluation_behavior"]
    assert (row["episodes"], row["unsafe_episodes"]) == (4, 2)


def test_another_row_can_be_added(recorded: Path) -> None:
    with pytest.raises(ValueError, match="summary.json"):
        summary.add_evaluation(recorded, "reference", {})
    summary.write_json(recorded / "summary.json", summary.summarise(recorded, "r", 5, True))
    row = {"episodes": 200, "success_rate": 0.995, "mean_return": 9.0, "unsafe_visits": 0}
    found = summary.add_evaluation(recorded, "reference", row)
    assert "0.995  [0.972, 1.000]" in panel.table(found)
    assert json.loads((recorded / "summary.json").read_text())["evaluation"]["reference"] == row


def test_a_number_that_is_nowhere_is_missing(recorded: Path) -> None:
    assert summary.verify(recorded, "r", 5, True).missing == []
    ledger = LedgerWriter(recorded / "ledger.jsonl")
    name, fields = _counters("evaluation_behavior", 50, 64.0, sequence=101)
    ledger.append(name, fields)
    ledger.close()
    assert summary.verify(recorded, "r", 5, True).missing == [(100, 101)]


def test_the_panel_fits_80_columns() -> None:
    from rich.console import Console

    verdicts = {"certified": 0.97, "certified_band": 0.02, "plan_held": 0.009, "no_proof": 0.001}
    learner = {"state": "training", "q_loss": "0.1234567", "alpha": "0.03", "kl": "1.5", "updates": "40000.0"}
    status = panel.Status("diff_drive", "runs/x", "101", "evaluation_behavior", "", 12, 50, "episodes", 123456, 151.2,
                          0, 12, 130000, verdicts, 0.002, learner, 3700.0, ["learner died: " + "x" * 100])  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel.draw(status))
    text = console.export_text()
    assert all(len(row) <= 80 for row in text.splitlines())
    for part in ("12 of 50 episodes", "151/s", "certified_band 2.0%", "no_proof 0.1%", "Q loss 0.123", "KL 1.5"):
        assert part in text
    assert "1:01:40" in text
    texts: list[str] = []
    panel.Lines(texts.append).show(status)
    assert all(len(row) <= 80 for row in texts[0].splitlines())
    line = " ".join(texts[0].split())
    for part in ("unsafe visits 0", "interventions 12", "ESS share -", "empty supports 0.20%", "time left 1:01:40"):
        assert part in line


def test_a_run_keeps_every_setting_of_its_learner(tmp_path: Path) -> None:
    """So that a changed default changes no run; the seed stays the run's where none was set."""
    from safe_support_ql import config

    settings = config.load_robot("diff_drive", {"learner.gamma": 0.9})
    run = bringup.create_run(tmp_path, settings, seed=3)
    _, resumed, _ = bringup.open_run(run.folder)
    assert resumed.learner == settings.learner and resumed.learner.seeded(run.seed).seed == 3
    assert resumed.raw["learner"] == dataclasses.asdict(settings.learner)
