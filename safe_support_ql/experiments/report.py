"""Draws report.png of a finished run: returns, certificate margins, evaluation, paths of the extracted policy."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import config as configuration
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.experiments.evaluate import make_policy
from safe_support_ql.recording.files import JOURNAL, PICTURE, POLICY, SUMMARY
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.footprint import corners_of
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.world import World

GREEN, GREY, RED, BLUE = "#1b7f4d", "#8a8f98", "#c0392b", "#1f5fa8"


def draw(run: Path, config: configuration.Config, continuous: bool) -> Path:
    """Write `run`/report.png and return its path. `config` and `continuous` are those of the run.

    Raises ValueError or OSError if the run has no summary or no policy.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    summary = json.loads((run / SUMMARY).read_text())
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    records = JournalReader(run / JOURNAL).read()
    _returns(axes[0, 0], records)
    _margins(axes[0, 1], records)
    _rates(axes[0, 2], summary)
    _paths(figure, axes[1], run, config, continuous)
    figure.suptitle(
        f"{summary['robot']}, seed {summary['seed']}: {summary['control_ticks']} control ticks, evaluation included, "
        f"{summary['unsafe_visits']} unsafe visits"
    )
    path = run / PICTURE
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _returns(axis: Any, records: Any) -> None:
    collected = records[records["phase"] == PHASES.index("collection")]
    ends = np.flatnonzero((collected["terminated"] | collected["truncated"]) > 0)
    sums = np.add.reduceat(collected["reward"], np.concatenate([[0], ends[:-1] + 1])) if len(ends) else np.zeros(0)
    axis.plot(ends, sums[: len(ends)], ".", color=GREY, markersize=4)
    axis.set(title="Collection: return of each episode", xlabel="control ticks", ylabel="return")
    axis.locator_params(axis="x", nbins=5)


def _margins(axis: Any, records: Any) -> None:
    executed = records["margin"][np.arange(len(records)), np.maximum(records["executed"], 0)]
    shown = executed[np.isfinite(executed) & (executed > -1)]
    axis.hist(np.clip(shown, None, 0.6), bins=60, color=BLUE)
    axis.axvline(0.0, color=RED)
    axis.set(
        title="Certificate margin of executed actions",
        xlabel="scaled margin (certified: right of the line)",
        yscale="log",
    )


def _rates(axis: Any, summary: dict[str, Any]) -> None:
    names = [name for name in ("behavior", "policy", "reference") if summary.get("evaluation", {}).get(name)]
    for i, name in enumerate(names):
        row = summary["evaluation"][name]
        low, high = row.get("success_interval95", (row["success_rate"],) * 2)
        axis.bar(i, row["success_rate"], color=GREEN if name == "policy" else GREY)
        axis.plot([i, i], [low, high], color="black")
        axis.text(i, 0.02, f"{row['unsafe_visits']} unsafe", ha="center", color="white", fontsize=9)
    axis.set(title="Held-out episodes: success, 95 % interval", ylim=(0, 1.05), xticks=range(len(names)))
    axis.set_xticklabels(names)


def _paths(figure: Any, axes: Any, run: Path, config: configuration.Config, continuous: bool) -> None:
    """Paths of the extracted policy, played again behind the gate without ROS."""
    sim = Simulation(config.robot)
    gate = Gate(config.robot, config.gate, continuous, 0)
    policy = make_policy(str(run / POLICY), config, continuous, sim, 0)
    for i, axis in enumerate(axes):
        trace: list[Floats] = []
        for outcome, _ in steps(sim, gate, policy, HELD_OUT.start + i, i):
            trace.append(sim.world.truth())
            last = outcome
        path = np.array(trace)
        seconds = np.arange(len(path)) / config.robot.world.control_hz
        if sim.world.map:
            _on_the_map(axis, sim.world, sim.world.map, path)
        else:
            _over_time(axis, config.robot, sim.world, seconds, path)
        end = (
            f": {'reached' if last.reached else 'not reached'}, {seconds[-1]:.0f} s" if config.robot.must_reach else ""
        )
        axis.set_title(f"Held-out episode {i}{end}")
    sim.close()


def _on_the_map(axis: Any, world: World, arena: Arena, path: Floats) -> None:
    from matplotlib.patches import Circle

    for outline in arena.outlines():
        axis.fill(*outline.T, color=GREY)
    axis.plot(path[:, 0], path[:, 1], color=GREEN, linewidth=2)
    if world.spec.footprint:
        cos, sin = np.cos(path[0, 2]), np.sin(path[0, 2])
        axis.fill(*(path[0, :2] + corners_of(world.spec.footprint) @ np.array([[cos, sin], [-sin, cos]])).T, color=BLUE)
    else:
        axis.add_patch(Circle(tuple(path[0, :2]), world.spec.footprint_radius, color=BLUE))
    if world.spec.arena:
        axis.add_patch(Circle(tuple(arena.goal), world.spec.arena.goal_radius, fill=False, color=GREEN, linewidth=2))
    axis.set(xlim=(-arena.half_side, arena.half_side), ylim=(-arena.half_side, arena.half_side), aspect="equal")


def _over_time(axis: Any, robot: Robot, world: World, seconds: Floats, path: Floats) -> None:
    """Every entry of the state over time, and the goal if there is one."""
    for name, values in zip(robot.state_names, path.T, strict=False):
        axis.plot(seconds, values, label=name)
    for value in world.goal if "goal" in robot.world.sensors.values() else ():
        axis.axhline(value, color=GREY, linestyle="--", label="goal")
    axis.legend()
    axis.set_xlabel("s")
