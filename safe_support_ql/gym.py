"""Registers one Gymnasium environment for each robot, ours or an installed one.

`gymnasium.make("safe_support_ql.gym:safe_support_ql/<Name>-v0", continuous=..., gate=..., render_mode=...)` imports
this module; after `import safe_support_ql.gym` the part behind the colon is enough. See docs/gymnasium.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from safe_support_ql import config, robots
from safe_support_ql.recording.seeds import TRAINING
from safe_support_ql.simulation.environment import Environment

NAMESPACE = "safe_support_ql"


def environment_id(robot: str) -> str:
    """The id of the environment of a robot: its name in camel case, in our namespace."""
    return f"{NAMESPACE}/{''.join(part.capitalize() for part in robot.split('_'))}-v0"


def make(
    robot: str,
    overrides: Mapping[str, Any] | None = None,
    continuous: bool = False,
    gate: str = "plan",
    render_mode: str | None = None,
) -> Environment:
    """The environment of `robot` with its shipped configuration, and `overrides` ('section.key' -> value) over it.

    Arenas are those of training; held-out ones are played by reset(options={"arena": number}). Raises ValueError for an
    unknown robot, and for a value that is not allowed.
    """
    settings = config.load_robot(robot, overrides)
    return Environment(settings.robot, settings.gate, TRAINING, continuous, gate, render_mode)


def register() -> None:
    """Register the environment of every robot that has none yet: a package may have been installed since."""
    for robot in robots.names():
        if (id := environment_id(robot)) not in gymnasium.registry:
            # Named, not passed: other processes import it by that name.
            gymnasium.register(id, entry_point=f"{__name__}:{make.__name__}", kwargs={"robot": robot})


register()
