"""The request of a policy, as a named vector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safe_support_ql.robots.base import Floats, Robot, Singles


def parse_request(names: list[str], values: Floats, robot: Robot) -> tuple[int, Singles]:
    """(id, action) of a named vector ('id' and every action name). Raises ValueError naming what is wrong."""
    table: Mapping[str, float] = dict(zip(names, values, strict=False))
    missing = [name for name in ("id", *robot.action_names) if name not in table]
    if missing or len(names) != len(values):
        raise ValueError(f"request lacks {', '.join(missing) or 'values'}; it names {', '.join(names) or 'nothing'}")
    if not np.isfinite(table["id"]):
        raise ValueError("request: id is not a number")
    return int(table["id"]), np.array([table[name] for name in robot.action_names], np.float32)
