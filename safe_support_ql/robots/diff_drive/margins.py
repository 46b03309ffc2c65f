"""The base's table of margins: for each, an error that is safe with the margin and unsafe without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safe_support_ql.robots.claims import Case, Margins
from safe_support_ql.robots.diff_drive.adversary import LidarBase, SeeingBase, TrustingBase
from safe_support_ql.robots.diff_drive.robot import DiffDrive

ZERO: Mapping[str, Any] = {
    "motion_mismatch": 0.0, "lag_mismatch": 0.0, "braking_mismatch": 0.0, "between_members": 0.0, "margin_model": 0.0,
    "margin_growth": 0.0, "obstacle_speed": 0.0,
    "between_members_turn": 0.0, "margin_model_turn": 0.0, "margin_growth_turn": 0.0, "margin_turn_estimate": 0.0,
    "margin_terminal": 0.0, "margin_speed_estimate": 0.0, "lidar_noise": 0.0, "band": 0.0, "noise_allowance": 0.0,
    "step_residual": 0.0, "terminal_speed": 0.001, "drive_timeout": 0.1,
}  # fmt: skip

CORNERS = {"footprint": ((0.25, 0.18), (-0.25, 0.18), (-0.25, -0.18), (0.25, -0.18))}
SPINNING = "a rectangle turns on the spot, its corner towards a post, and then brakes"
AT_WALL = "drives towards a post at the speed of least margin, then brakes"
AT_SEEN_WALL = "drives at a wall that its lidar sees"
CASES = (
    Case(
        "motion_mismatch", "drives 20 % farther than the odometry says", "no member drives farther", AT_WALL,
        {"ground": 1.2}, {"motion_mismatch": 0.2}, share="none",
    ),
    Case(
        "lag_mismatch", "lag of the drive 30 % longer", "the ensemble has the nominal lag alone", AT_WALL,
        {"lag": 1.3}, {"lag_mismatch": 0.3}, share="none",
    ),
    Case(
        "braking_mismatch", "slew limit 20 % lower", "the ensemble brakes as the nominal drive does", AT_WALL,
        {"braking": 0.8}, {"braking_mismatch": 0.2}, share="none",
    ),
    Case(
        "between_members", "a drive inside all mismatches that is not a member",
        "the members stand for the whole box", "turns in beside a post, then commands stop",
        {
            "turning": (0.17, -0.68), "post": (0.07, -0.28), "dies": 0.25,
            "ground": 0.8, "turn": 1.2, "lag": 0.7, "braking": 0.8,
        },
        {"between_members": 0.01},
        {"motion_mismatch": 0.2, "lag_mismatch": 0.3, "braking_mismatch": 0.2, "drive_timeout": 0.25},
    ),
    Case(
        "margin_model", "one slip of 0.005 m when it brakes", "no clearance for what the model misses at once", AT_WALL,
        {"jump": 0.005}, {"margin_model": 0.005},
    ),
    Case(
        "margin_growth", "it drifts 0.02 m/s towards the post while it moves", "errors do not grow along the rollout",
        AT_WALL, {"drift": 0.02}, {"margin_growth": 0.02},
    ),
    Case(
        "margin_terminal", "it creeps on below terminal_speed, 0.02 m/s", "S_f counts as standing still", AT_WALL,
        {"creep": True}, {"margin_terminal": 0.008}, {"terminal_speed": 0.02},
    ),
    Case(
        "margin_speed_estimate", "the odometry reports 0.06 m/s too little", "its speed counts as exact", AT_WALL,
        {"odometry_lost": 0.06}, {"margin_speed_estimate": 0.06},
    ),
    Case(
        "margin_model_turn", "it turns 0.01 rad too far when it brakes", "no turn is missed at once", SPINNING,
        {"turn_jump": 0.01}, {"margin_model_turn": 0.01}, CORNERS,
    ),
    Case(
        "margin_growth_turn", "it turns on by 0.04 rad/s while it moves", "errors of the heading do not grow", SPINNING,
        {"turn_drift": 0.04}, {"margin_growth_turn": 0.04}, CORNERS,
    ),
    Case(
        "margin_turn_estimate", "the odometry reports 0.1 rad/s too little", "its turn rate counts as exact", SPINNING,
        {"turn_lost": 0.1}, {"margin_turn_estimate": 0.1}, CORNERS,
    ),
    Case(
        "between checks, corners", "a corner is nearest to the post between two checks", "only checks themselves count",
        "a rectangle turns at 1.5 rad/s, its corner past a post", {"sweep": 1.5}, {}, CORNERS, share="rest",
    ),
    Case(
        "between_members_turn", "", "", "",
        why_not="a reserve for models between the members; no scenario was found in which deleting it is unsafe, see "
        "test_outline.py for what such a model loses",
    ),
    Case(
        "lidar_noise", "every range 0.03 m too long", "ranges count as exact", AT_SEEN_WALL,
        {"range_error": 0.03}, {"lidar_noise": 0.03}, share="none", monitor=LidarBase,
    ),
    Case(
        "gap between rays", "a right-angled corner stands out between two rays", "hits are joined by straight lines",
        "drives towards the corner of a box that its lidar sees", {"corner": True}, share="none",
        monitor=DiffDrive, unguarded=LidarBase,
    ),
    Case(
        "between checks", "the nearest point lies between two checks", "only the checks themselves count",
        "passes a post at full speed, its nearest point midway between two checks", {"speed": 0.6},
        share="rest",
    ),
    Case(
        "drive_timeout", "the monitor dies and the drive holds its command for 0.25 s", "commands act for one period",
        "drives towards a post, then commands stop", {"dies": 0.25}, {"drive_timeout": 0.25}, share="none",
    ),
    Case(
        "age of the state, input_age", "the state is one period old", "a state counts as new", AT_WALL, {"old": 1},
        share="none",
    ),
    Case(
        "age of a scan, scan_age", "scans are two periods old, and it drives 20 % farther than the odometry says",
        "what was driven since a scan counts as exact", AT_SEEN_WALL, {"behind": {"scan": 2}, "ground": 1.2},
        common={"motion_mismatch": 0.2}, share="none", monitor=LidarBase, unguarded=TrustingBase,
    ),
    Case(
        "stamp_error", "scans are stamped one period late", "their stamps count as exact", AT_SEEN_WALL,
        {"behind": {"scan": 1}, "hidden": {"scan": 1}}, {"lidars": ({"stamp_error": 0.1},)}, share="none",
        monitor=LidarBase,
    ),
    Case(
        "obstacle_speed", "somebody walks towards it at 0.3 m/s", "everybody stands still",
        "drives towards somebody at the speed of least margin, then brakes", {"walks": 0.3}, {"obstacle_speed": 0.3},
    ),
    Case(
        "shadows, for obstacle_speed", "", "", "",
        why_not="no margin but points along the edges of what is seen, see test_walkers.py",
    ),
    Case(
        "pocket, groups of rays, what was seen before", "", "", "",
        why_not="no margins but evidence: benchmarks/sensors.py deletes what a lidar sees, from the start and later",
    ),
    Case(
        "actuation delay", "", "", "",
        why_not="no margin of its own: rollouts begin with the earlier commands, for the age of the state and the wait "
        "for a request (see the row of the age); a dead time of the drive itself is not covered",
    ),
    Case(
        "saturation of the plan", "", "", "",
        why_not="the plan is zero, inside every command limit, so it is never clipped; the slew limit is part of the "
        "model, and its error is braking_mismatch",
    ),
    Case(
        "max_skew_s", "", "", "",
        why_not="bounds how far apart the gate accepts inputs that are measured at the instant of the state; the base "
        "has only its odometry, and scans are brought to that instant",
    ),
    Case(
        "residual_distance, residual_turn, residual_speed, residual_turn_rate", "", "", "",
        why_not="W: decide what counts as a mismatch and whether a plan counts as held; not part of a certificate",
    ),
    Case(
        "scan_residual_distance, scan_residual_turn, scan_disagreement", "", "", "",
        why_not="W of the scans, as above",
    ),
    Case("footprint_radius, clearance", "", "", "", why_not="define the safe set and cover no error"),
    Case(
        "speed_margin, turn_margin", "", "", "",
        why_not="define the safe set; full commands at the largest mismatch, 0.72 m/s and 1.8 rad/s, stay inside",
    ),
    Case(
        "band, band_budget, noise_allowance, step_residual", "", "", "",
        why_not="decide when the plan takes over, not whether it is safe; without them less is certified",
    ),
)  # fmt: skip

MARGINS = Margins(zero=ZERO, monitor=SeeingBase, cases=CASES)
