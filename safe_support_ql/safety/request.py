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
    if len(table) != len(names):
        raise ValueError(f"request names something twice: {', '.join(names)}")
    if not float(table["id"]).is_integer():
        raise ValueError(f"request: id is {table['id']:g}, must be a whole number")
    with np.errstate(over="ignore"):  # what is too large for the command becomes infinite, which the gate refuses
        return int(table["id"]), np.array([table[name] for name in robot.action_names]).astype(np.float32)
