"""The list of faults is complete, and a result is judged by order, state, visits and time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import faults
from safe_support_ql.experiments.faults import Expect, Fault, Seen
from safe_support_ql.robots.scan import Scan, full_circle

FAULT = Fault("silence: odom, 2 s", "silence", "drop", "odom", None, 2.0, Expect.LATCHED, "odom is .* old", 0.35)
SILENT = "odom is 0.27 s old, allowed 0.25 s"


@pytest.mark.parametrize("phase", faults.PHASES)
@pytest.mark.parametrize("robot", robots.names())
def test_every_robot_has_what_the_campaign_promises(robot: str, phase: str) -> None:
    chosen = faults.catalogue(config.load_robot(robot), phase)
    names = [fault.name for fault in chosen]
    assert len(names) >= 30 and len(names) == len(set(names))
    assert all(fault.limit_s > 0 for fault in chosen)
    assert all(fault.cause for fault in chosen if fault.expect not in (Expect.GOES_ON, Expect.DRIVE))
    lost, kinds = faults.uncoverable_kinds(chosen)
    assert len(lost) <= len(kinds) / 4, lost
    inputs = {channel.name for channel in config.load_robot(robot).robot.channels} | {faults.REQUEST}
    forms: dict[tuple[str, str], set[float]] = {}
    for fault in chosen:
        if fault.target in inputs and fault.verb != "flood" and not fault.from_start:  # many messages by nature
            forms.setdefault((fault.kind, fault.target), set()).add(fault.seconds)
    assert len(forms) > 20
    assert all({0.0, faults.LONG_S} <= seconds for seconds in forms.values()), forms
    reasons = {fault.uncoverable.partition(":")[0] for fault in chosen} - {""}
    assert reasons <= {"no passive safe state", "nothing could contradict it"}, "the two that excuse"


@pytest.mark.parametrize("phase", faults.PHASES)
def test_what_goes_wrong_with_a_lidar_is_in_the_list(phase: str) -> None:
    known = {fault.name: fault for fault in faults.catalogue(config.load_robot("diff_drive"), phase)}
    for name in ("blind: scan, 2 s", "blind sector: scan, 2 s", "blind ring: scan, 2 s", "clock jumps back"):
        assert not known[name].from_start
    for name in ("blind from the start: scan", "rolling scan", "scan out of phase"):
        assert known[name].from_start and known[name].covered and not known[name].may_latch
    assert known["rolling scan"].option == {"lidar_turn_s": 0.1}
    others = faults.catalogue(config.load_robot("cart_pole"), phase)
    assert not any(fault.from_start for fault in others), "it has no lidar"


def test_a_robot_that_is_blind_from_the_start_must_not_move() -> None:
    (fault,) = faults.select(faults.catalogue(config.load_robot("diff_drive"), "collection"), ["blind from"])
    stands = Seen(decisions=[(0.1, "closed", "scan: 0 of 180 rays returned a range")], state="closed")
    assert faults.judge(fault, stands, "diff_drive", "collection").passed
    assert "in motion for 0.2 s" in faults.judge(fault, replace(stands, moved_s=0.2), "diff_drive", "collection").why


def test_an_honest_lidar_passes_if_the_robot_drives_with_it() -> None:
    (fault,) = faults.select(faults.catalogue(config.load_robot("diff_drive"), "collection"), ["rolling"])
    drives = Seen(decisions=[(0.05, "request", "")], state="nominal", moved_s=3.0)
    assert not faults.hidden(fault, drives) and faults.judge(fault, drives, "diff_drive", "collection").passed
    assert faults.hidden(fault, replace(drives, moved_s=0.0)), "play it again"
    latched = replace(drives, moved_s=0.0, state="latched: mismatch")
    assert not faults.hidden(fault, latched), "that is an answer"
    assert "latched, though" in faults.judge(fault, latched, "diff_drive", "collection").why


def test_a_malformed_message_passes_if_the_gate_goes_on_and_somebody_names_its_topic() -> None:
    settings = config.load_robot("diff_drive")
    (fault,) = faults.select(faults.catalogue(settings, "collection"), ["malformed message: outcome, once"])
    goes_on = Seen(decisions=[(0.05, "request", "")], state="nominal")
    assert not faults.judge(fault, goes_on, "diff_drive", "collection").passed
    said = "outcome refused (1 so far): outcome: phase is nan"
    result = faults.judge(fault, replace(goes_on, logs=[(0.4, said)]), "diff_drive", "collection")
    assert result.passed and result.message == said
    latched = replace(goes_on, logs=[(0.4, said)], state="latched: the monitor failed")
    assert "latched, though" in faults.judge(fault, latched, "diff_drive", "collection").why


def test_an_unknown_name_or_phase_is_refused() -> None:
    settings = config.load_robot("diff_drive")
    with pytest.raises(ValueError, match="must be one of: collection, deployment"):
        faults.catalogue(settings, "evaluation")
    with pytest.raises(ValueError, match="no fault of this robot"):
        faults.select(faults.catalogue(settings, "collection"), ["earthquake"])


def seen(**changes: object) -> Seen:
    """What a gate does that passes FAULT."""
    answers = [(0.05, "request", ""), (0.2, "input_missing", SILENT), (1.3, "latched", SILENT)]
    return replace(Seen(decisions=answers, state=f"latched: {SILENT}"), **changes)  # type: ignore[arg-type]


def test_a_plan_that_names_its_cause_in_time_and_latches_passes() -> None:
    result = faults.judge(FAULT, seen(), "r", "collection")
    assert result.passed and result.reaction_s == 0.2 and result.message == SILENT and result.state == "latched"
    assert len(faults.row(result)) <= 80


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"visits": 1, "visit_s": 0.5}, "1 unsafe visits"),
        ({"decisions": [(0.1, "request", "")]}, "no reaction that names its cause"),
        ({"decisions": [(0.2, "input_missing", "scan was never received")]}, "no reaction that names its cause"),
        ({"decisions": [(0.4, "input_missing", SILENT)]}, "reacted after 0.400 s, allowed 0.350 s"),
        ({"state": "nominal"}, "nominal, not latched"),
        ({"trouble": "the graph is gone"}, "the graph is gone"),
    ],
)
def test_a_wrong_reaction_fails_with_its_reason(changes: dict[str, object], why: str) -> None:
    result = faults.judge(FAULT, seen(**changes), "r", "collection")
    assert not result.passed and why in result.why
    assert why in faults.closing([result], [FAULT])


def test_a_latch_is_too_much_unless_the_fault_allows_it() -> None:
    fault = replace(FAULT, expect=faults.Expect.BACKUP)
    result = faults.judge(fault, seen(), "r", "collection")
    assert not result.passed and "could have gone on" in result.why
    assert faults.judge(replace(fault, may_latch=True), seen(), "r", "collection").passed
    known = faults.catalogue(config.load_robot("diff_drive"), "collection")
    long = {f"{kind}: scan, 2 s" for kind in ("NaN sector", "-Inf ranges", "blind", "blind sector", "blind ring")}
    assert {fault.name for fault in known if fault.may_latch} == long


def test_a_cause_may_stand_in_the_state_of_the_gate_and_the_plan_must_run_by_then() -> None:
    blind = [(0.05, "request", ""), (0.3, "input_missing", "scan is 0.27 s old")]
    result = faults.judge(FAULT, seen(decisions=blind, states=[(0.2, f"latched: {SILENT}")]), "r", "collection")
    assert result.passed and result.reaction_s == 0.3 and SILENT in result.message
    assert not faults.judge(FAULT, seen(decisions=blind[:1], states=[(0.2, SILENT)]), "r", "collection").passed


def test_the_short_campaign_does_not_judge_time() -> None:
    slow = seen(decisions=[(0.4, "input_missing", SILENT)])
    assert faults.judge(FAULT, slow, "r", "collection", timed=False).passed


def test_an_uncoverable_fault_may_cost_a_visit_but_not_its_name() -> None:
    lost = replace(FAULT, uncoverable=faults.NO_PASSIVE_STATE)
    result = faults.judge(lost, seen(visits=1, visit_s=0.5), "r", "collection")
    assert result.passed and result.unsafe_visits == 1 and result.time_to_loss_s == 0.5 and not result.covered
    assert not faults.judge(lost, seen(decisions=[]), "r", "collection").passed


@pytest.mark.parametrize(
    ("expect", "given", "passes"),
    [
        (Expect.REFUSED, {"logs": [(0.01, "input refused: odom: NaN")], "refused": 1, "state": "nominal"}, True),
        (Expect.REFUSED, {"logs": [(0.01, "input refused: odom: NaN")], "refused": 0, "state": "nominal"}, False),
        (Expect.REFUSED, {"logs": [], "refused": 1, "state": "nominal"}, False),
        (Expect.BACKUP, {"decisions": [(0.1, "no_request", "odom: NaN")], "state": "backup"}, True),
        (Expect.BACKUP, {"decisions": [(0.1, "no_request", "odom: NaN")], "state": "latched"}, False),
        (Expect.BACKUP, {"decisions": [(0.1, "request", "odom: NaN")], "state": "nominal"}, False),
        (Expect.DRIVE, {"stood_s": 0.3, "state": "silent"}, True),
        (Expect.DRIVE, {"stood_s": None, "state": "silent"}, False),
        (Expect.PARAMETER, {"answer": (0.1, "odom: must be NaN"), "state": "nominal"}, True),
        (Expect.PARAMETER, {"answer": None, "state": "nominal"}, False),
        (Expect.GOES_ON, {"decisions": [(0.1, "request", "")], "state": "nominal"}, True),
        (Expect.GOES_ON, {"decisions": [], "state": "nominal"}, False),
        (Expect.GOES_ON, {"decisions": [(0.1, "latched", "x")], "state": "latched"}, False),
        (Expect.EITHER, {"decisions": [(0.1, "request", "")], "state": "nominal"}, True),
        (Expect.EITHER, {"decisions": [(0.1, "latched", "odom: NaN")], "state": "latched"}, True),
        (Expect.EITHER, {"decisions": [(0.1, "latched", "x")], "state": "latched"}, False),
        (Expect.EITHER, {"decisions": [], "state": "nominal"}, False),
    ],
)
def test_each_expectation_has_its_own_proof(expect: Expect, given: dict[str, object], passes: bool) -> None:
    fault = replace(FAULT, expect=expect, cause="odom: .*NaN")
    assert faults.judge(fault, Seen(**given), "r", "collection").passed is passes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "moved_s", "again"),
    [(0.5, 0.1, False), (4.005, 0.1, True), (None, 0.1, True), (None, faults.SHOWN_S, False)],
)
def test_a_false_motion_is_played_again_if_the_robot_stood(at: float | None, moved_s: float, again: bool) -> None:
    lie = replace(FAULT, cause=faults.MISMATCH, seconds=faults.MISMATCH_S, limit_s=faults.MISMATCH_S)
    told = [] if at is None else [(at, "latched", "mismatch: v is off by 2.0 times what the models leave open")]
    assert faults.hidden(lie, seen(decisions=told, moved_s=moved_s)) is again
    assert not faults.hidden(FAULT, seen(decisions=[])), "any other fault shows while the robot stands"


def test_an_alteration_leaves_what_came_before_alone() -> None:
    vector, first = np.arange(8.0), np.full(8, 7.0)
    arguments = {"scale one": (1, 2.0), "shift one": (1, 2.0), "silent": 1.0}
    scan = full_circle(np.arange(8.0), 9.0).vector()
    for name, change in faults.ALTERATIONS.items():
        before = scan if name in ("silent", "nearer", "front", "cut front", "scale ranges") else vector
        out = change(before, first, arguments.get(name, 3.0))
        assert out.shape == before.shape and not np.array_equal(out, before), name
    assert Scan.of(scan).ranges.tolist() == vector.tolist()
    assert vector.tolist() == list(range(8)) and (first == 7.0).all()
