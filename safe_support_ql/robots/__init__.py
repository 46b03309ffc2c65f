"""What one robot is: one module and one YAML each. `make` is the only way to get one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from safe_support_ql.robots.base import Robot


def names() -> tuple[str, ...]:
    """Robots that exist, by module name."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("base", "world", "geometry")))


def make(name: str, parameters: Mapping[str, Any], where: str = "parameters") -> Robot:
    """The robot `name` with `parameters` over its defaults. Raises ValueError: the key and what would be right."""
    if name not in names():
        raise ValueError(f"unknown robot '{name}'; known robots: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    robot: Robot = module.make(parameters, where)
    return robot
