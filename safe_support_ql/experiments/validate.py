"""Plays a policy in every world that its robot claims to cover, and writes the report that deployment asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safe_support_ql import config as configuration
from safe_support_ql import robots
from safe_support_ql.deployment import validation
from safe_support_ql.experiments.evaluate import run, summarise
from safe_support_ql.experiments.workers import pool as start
from safe_support_ql.experiments.worlds import names
from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound
from safe_support_ql.recording.files import write_json
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.robots.claims import DRAWN, FAULTY, LOSSY


def validate(
    config: configuration.Config, policy: Path, continuous: bool, workers: int, key: bytes,
    say: Callable[[str, Mapping[str, Any]], None],
) -> dict[str, Any]:  # fmt: skip
    """Validate `policy` and write its report; `say` hears each world's row. Raises OSError."""
    criteria = config.validation
    about = validation.bound_to(policy, config.safety_hash, criteria)  # before: it is the file that is played
    rows: dict[str, dict[str, Any]] = {}
    with start(workers) as pool:
        seeds = HELD_OUT[: criteria.episodes]
        claims = robots.claims_of(config.robot)
        more = (DRAWN, LOSSY, *((FAULTY,) if claims.failing else ())) if claims.drawn is not None else ()
        worlds = (*names(config.robot), *more)
        jobs = {world: pool.submit(run, config.raw, str(policy), continuous, seeds, world) for world in worlds}
        for world, job in jobs.items():
            results = job.result()
            rows[world] = summarise(config, results)
            rows[world]["unsafe_episodes"] = sum(result.unsafe_visits > 0 for result in results)
            say(world, rows[world])
    ticks, episodes = (sum(row[name] for row in rows.values()) for name in ("control_ticks", "episodes"))
    visits, unsafe = (sum(row[name] for row in rows.values()) for name in ("unsafe_visits", "unsafe_episodes"))
    hours = ticks * config.robot.period / 3600
    report = about | {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "robot": config.robot.name,
        "worlds": rows,
        "episodes": episodes,
        "simulated_hours": hours,
        "unsafe_visits": visits,
        "unsafe_rate_upper95_per_hour": rate_upper_bound(visits, hours),
        "unsafe_episode_upper95": proportion_interval(unsafe, episodes, 0.9)[1],
        "calibration": "not measured",
        "failed": validation.objections(rows, criteria),
    }
    report = validation.sealed(report, key)
    write_json(validation.report_path(policy), report)
    return report
