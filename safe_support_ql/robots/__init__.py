"""Finds a robot by name and makes it: one folder here or one installed package per robot, and one YAML for each."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.claims import Claims
from safe_support_ql.robots.consistency import inconsistency

# Entry points of installed packages: <robot> = <package with the layout of the folders here and a <robot>.yaml>.
GROUP = "safe_support_ql.robots"


def names() -> tuple[str, ...]:
    """All robots: the folders here, and the entry points of installed packages."""
    return tuple(sorted({*_own(), *_installed()}))


def make(name: str, parameters: Mapping[str, Any], where: str = "parameters") -> Robot:
    """The robot `name` with `parameters` over its defaults. Raises ValueError: the key and what would be right."""
    module = _module(name, "robot")
    if not hasattr(module, "make"):
        raise ValueError(f"robot '{name}': {module.__name__} has no function make(parameters, where)")
    robot: Robot = module.make(parameters, where)
    if robot.name != name:  # its hash and its claims would be another robot's
        raise ValueError(f"robot '{name}': its class in {module.__name__} has name = '{robot.name}', must be '{name}'")
    if wrong := inconsistency(robot):
        raise ValueError(f"robot '{name}': {wrong}")
    return robot


def claims_of(robot: Robot) -> Claims:
    """What `robot` claims, from the module `claims` of its package; no claims if that module does not exist."""
    module = f"{_package(robot.name)}.claims"
    if importlib.util.find_spec(module) is None:
        return Claims()
    claimed: Claims = importlib.import_module(module).claims(robot)
    return claimed


def claimed(robot: Robot, part: str, by: str) -> Any:
    """One part of the robot's claims. If it is missing, raises ValueError: what `by` needs, and where to write it."""
    claims = claims_of(robot)
    found = getattr(claims, part)
    if found is None:
        path = f"{_package(robot.name).removeprefix('safe_support_ql.').replace('.', '/')}/claims.py"
        what, where = (
            ("makes no claims", path) if claims == Claims() else (f"makes no claim '{part}'", f"{part} in {path}")
        )
        raise ValueError(f"robot '{robot.name}' {what}: {by} needs {where}, see docs/add_a_robot.md")
    return found


def folder(name: str) -> Path | None:
    """The folder of an installed robot, None for a robot of this package. Raises ValueError for an unknown one."""
    if name in _own():
        return None
    try:
        spec = importlib.util.find_spec(_package(name))
    except ModuleNotFoundError:  # of a parent
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"robot '{name}': {_package(name)} is no package; its entry point must name a folder")
    return Path(next(iter(spec.submodule_search_locations)))


def provenance(name: str) -> str:
    """Distribution, version and sha256 of all files of an installed robot; '' for a robot of this package.

    Policies and falsifications of a robot are valid for these files only.
    """
    root = folder(name)
    if root is None:
        return ""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    distribution = _installed()[name].dist
    version = f"{distribution.name} {distribution.version}" if distribution else "no distribution"
    return f"{version} {digest.hexdigest()}"


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if module.ispkg}


def _installed() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=GROUP):
        other = "safe_support_ql" if point.name in _own() else point.name in found and _distribution(found[point.name])
        if other and other != _distribution(point):
            raise ValueError(
                f"robot '{point.name}' is both in {other} and in {_distribution(point)}; uninstall one or rename it"
            )
        found[point.name] = point
    return found


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else f"the package {point.value}"


def _package(name: str) -> str:
    if name in _own():
        return f"{__name__}.{name}"
    installed = _installed()
    if name not in installed:
        raise ValueError(f"unknown robot '{name}'; known robots: {', '.join(names())}")
    return installed[name].value


def _module(name: str, part: str) -> ModuleType:
    package = _package(name)
    try:
        return importlib.import_module(f"{package}.{part}")
    except ModuleNotFoundError as error:
        if error.name is not None and f"{package}.{part}".startswith(error.name):
            raise ValueError(f"robot '{name}': there is no module {package}.{part}") from None
        raise ValueError(f"robot '{name}': {package}.{part} cannot be imported: {error}") from error
    except Exception as error:  # whatever somebody else's module raises
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"robot '{name}': {package}.{part} cannot be imported: {what}") from error
