"""What a falsification shows, from its shards: bounds on what are trials, and whether it came near enough to matter."""

from __future__ import annotations

from typing import Any

from safe_support_ql import robots
from safe_support_ql.recording.bounds import proportion_interval
from safe_support_ql.robots.base import Robot

LEAST_NEAR = 0.2  # of the counted steps must come near the boundary, or the search shows little


def bounds(robot: Robot, results: list[dict[str, Any]]) -> str:
    """What the random search bounds: trials are drawn independently from a fixed distribution, which steps are not.

    Where episodes start again from states that earlier ones met (Search.remembers), they are not either, so a trial is
    a shard. An episode ends with its first visit.
    """
    trial = "shards" if robots.claimed(robot, "search", "falsify").remembers else "episodes"
    lines = [f"random search, a trial is one of its {trial}:"]
    drawn = [result for result in results if result["kind"] == "random"]
    for world in dict.fromkeys(result["mismatch"] for result in drawn):
        rows = [result for result in drawn if result["mismatch"] == world]
        episodes, latched = (sum(row[key] for row in rows) for key in ("episodes", "latched"))
        unsafe = sum(row["unsafe_visits"] if trial == "episodes" else row["unsafe_visits"] > 0 for row in rows)
        trials = episodes if trial == "episodes" else len(rows)
        upper = proportion_interval(min(unsafe, trials), trials, 0.9)[1]  # one-sided 95 %
        lines.append(f"  {world:<16}{unsafe} of {trials} unsafe, below {upper:.1e} at 95 %")
        lines.append(f"  {'':<16}{latched} of {episodes} episodes latched though all was within W")
    return "\n".join(lines)


def objection(results: list[dict[str, Any]]) -> str:
    """Why the shards show too little; '' where they do not."""
    near = sum(row["near"] for row in results) / max(sum(row["counted_steps"] for row in results), 1)
    if near >= LEAST_NEAR:
        return ""
    return f"only {near:.1%} of the counted steps came near the boundary, {LEAST_NEAR:.0%} are asked for"
