"""What a falsification proves: bounds over independent trials, and whether the search came near the boundary at all."""

from __future__ import annotations

from typing import Any

from safe_support_ql import robots
from safe_support_ql.recording.bounds import proportion_interval
from safe_support_ql.robots.base import Robot

LEAST_NEAR = 0.2  # share of the counted steps that must come near the boundary


def bounds(robot: Robot, results: list[dict[str, Any]]) -> str:
    """Bounds from the random search. A trial is an episode: steps are not independent, episodes are.

    If episodes start from states that earlier ones met (Search.remembers), they are not independent, and a trial is a
    shard. An episode ends with its first visit.
    """
    trial = "shards" if robots.claimed(robot, "search", "falsify").remembers else "episodes"
    lines = [f"random search, one trial for each of its {trial}:"]
    drawn = [result for result in results if result["kind"] == "random"]
    for world in dict.fromkeys(result["mismatch"] for result in drawn):
        rows = [result for result in drawn if result["mismatch"] == world]
        episodes, latched = (sum(row[key] for row in rows) for key in ("episodes", "latched"))
        unsafe = sum(row["unsafe_visits"] if trial == "episodes" else row["unsafe_visits"] > 0 for row in rows)
        trials = episodes if trial == "episodes" else len(rows)
        upper = proportion_interval(min(unsafe, trials), trials, 0.9)[1]  # one-sided 95 %
        lines.append(f"  {world:<16}{unsafe} of {trials} unsafe, below {upper:.1e} at 95 %")
        lines.append(f"  {'':<16}{latched} of {episodes} episodes latched though all errors were within bounds")
    return "\n".join(lines)


def objection(results: list[dict[str, Any]]) -> str:
    """Why the shards show too little; '' if they show enough."""
    near = sum(row["near"] for row in results) / max(sum(row["counted_steps"] for row in results), 1)
    if near >= LEAST_NEAR:
        return ""
    return f"only {near:.1%} of the counted steps came near the boundary, must be at least {LEAST_NEAR:.0%}"
