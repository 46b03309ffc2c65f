"""Who may know whom: each folder has one reason to change, and what must start fast stays so.

The rules are data at the top. The sources are read, not run, so the rules also hold for imports inside functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "safe_support_ql"

FOLDERS = {"robots", "safety", "recording", "behavior", "deployment", "learning", "simulation", "experiments", "nodes"}
# Modules beside the folders, and cli/. `parameters` is a leaf that all may know; files are read at the edge, so only
# what is near the edge knows `config`, and the folders below are handed values.
EDGE = {"config", "panel", "bringup", "launching", "gym", "cli"}

MAY_KNOW: dict[str, set[str]] = {
    "parameters": set(),
    "robots": set(),
    "safety": {"robots"},
    "recording": {"robots", "safety"},
    "behavior": {"robots", "safety"},
    "deployment": {"robots", "safety"},
    "learning": {"robots", "safety", "recording", "behavior", "deployment"},
    "simulation": {"robots", "safety", "behavior"},
    "experiments": FOLDERS - {"nodes"} | {"config"},
    # Of learning and deployment their settings, without torch and ONNX Runtime.
    "config": {"robots", "safety", "recording", "behavior", "learning", "deployment"},
    "panel": {"safety", "recording"},
    "bringup": {"config", "recording", "robots", "safety", "deployment"},
    "launching": {"bringup", "config", "recording", "robots", "deployment"},
    "gym": {"config", "recording", "robots", "simulation"},
    "nodes": FOLDERS | EDGE - {"launching", "gym", "cli"},
    "cli": FOLDERS | EDGE,
}
LEAVES = {"parameters"}

# library: the only places that may import it, at module level or inside a function.
ONLY_IN: dict[str, set[str]] = {
    "rclpy": {"nodes"},
    "rosbags": {"nodes"},
    "pybullet": {"simulation"},
    "pybullet_data": {"simulation"},
    "gymnasium": {"simulation", "gym"},
    "torch": {"learning"},
    "yaml": {"config"},
    "launch": {"launch", "launching"},
    "launch_ros": {"launching"},
}
ROS_INTERFACES = ("_msgs", "_srvs", "_interfaces", "_action")  # endings of ROS packages that hold message classes

# Modules that may take a second to start, because learning is their job. Everything else starts without torch, and what
# needs `learning` only sometimes (cli, experiments) imports it inside the function that does.
STARTS_WITH_TORCH = {f"{PACKAGE}.nodes.learner", f"{PACKAGE}.experiments.train"}


@dataclass(frozen=True)
class Import:
    """One imported dotted name. `at_start` is false inside a function and under TYPE_CHECKING."""

    name: str
    line: int
    at_start: bool


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(module: str) -> str:
    """The folder or top-level module a module belongs to: 'robots', 'config', 'launch'; '' for the package itself."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return parts[0]
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path, root: Path) -> Iterator[Import]:
    module = module_name(path, root)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]

    def visit(node: ast.AST, at_start: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_start)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{source}.{alias.name}", node.lineno, at_start)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_start)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_start and not inside)

    yield from visit(ast.parse(path.read_text(), str(path)), True)


def sources(root: Path) -> list[Path]:
    return sorted([*(root / PACKAGE).rglob("*.py"), *(root / "launch").glob("*.py")])


def folder_violations(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        here = place(module_name(path, root))
        if here in {"", "launch"}:
            continue
        if here not in MAY_KNOW:
            found.append(f"{path.relative_to(root)}: '{here}' has no line in MAY_KNOW: say whom it may know")
            continue
        for item in imports(path, root):
            there = place(item.name)
            if (
                item.name.startswith(f"{PACKAGE}.")
                and (root / PACKAGE / there).is_dir() | (root / PACKAGE / f"{there}.py").is_file()
            ):
                if there != here and there not in MAY_KNOW[here] | LEAVES:
                    found.append(f"{path.relative_to(root)}:{item.line}: {here} may not know {there}")
    return found


def library_violations(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        here = place(module_name(path, root))
        for item in imports(path, root):
            library = item.name.split(".")[0]
            places = {"nodes"} if library.endswith(ROS_INTERFACES) else ONLY_IN.get(library)
            if places is not None and here not in places:
                found.append(f"{path.relative_to(root)}:{item.line}: {library} belongs in {', '.join(sorted(places))}")
    return found


def start_closure(module: str, root: Path) -> dict[str, str]:
    """Everything that importing `module` imports, with the chain of this package's modules that leads there."""
    files = {module_name(path, root): path for path in sources(root)}
    chains: dict[str, str] = {}

    def follow(name: str, chain: str) -> None:
        # `a.b.c` runs a, a.b and a.b.c; its last part may be a name inside a.b.
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            prefix = ".".join(parts[:depth])
            if prefix in chains or (parts[0] == PACKAGE and prefix not in files):
                continue
            chains[prefix] = chain
            if prefix in files:
                for item in imports(files[prefix], root):
                    if item.at_start:
                        follow(item.name, f"{chain} -> {prefix}" if chain else prefix)

    follow(module, "")
    return chains


def slow_starts(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        module = module_name(path, root)
        if place(module) in {"learning", "launch"} or module in STARTS_WITH_TORCH:
            continue
        closure = start_closure(module, root)
        if "torch" in closure:
            found.append(f"{module} starts with torch: {closure['torch']} -> torch")
    return found


def robots_named(root: Path) -> list[str]:
    """Generic code names no robot and asks none for its class; the default robot is named once."""
    folders = root / PACKAGE / "robots"
    names = [path.parent.name for path in folders.glob("*/robot.py")]
    spellings = {f"{first}[_ -]?{rest}" for first, _, rest in (name.partition("_") for name in names)}
    named = re.compile("|".join([*sorted(spellings), r"isinstance\(\s*([\w.]+\.)?robot\s*,"]), re.IGNORECASE)
    found = []
    for path in sources(root):
        if any(path.is_relative_to(folders / name) for name in names):
            continue
        for line, text in enumerate(path.read_text().splitlines(), 1):
            default = path == root / PACKAGE / "__init__.py" and text.startswith("DEFAULT_ROBOT = ")
            if (match := named.search(text)) and not default:
                found.append(f"{path.relative_to(root)}:{line}: generic code may not say '{match[0]}'")
    return found


RULES = {
    "folders": folder_violations,
    "libraries": library_violations,
    "start without torch": slow_starts,
    "robots": robots_named,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: str) -> None:
    violations = RULES[rule](ROOT)
    assert not violations, "\n" + "\n".join(violations)


def test_every_folder_is_a_package() -> None:
    """setup.py finds packages by their __init__.py: a folder without one would be missing in an installation only."""
    folders = {path.parent for path in sources(ROOT) if path.is_relative_to(ROOT / PACKAGE)}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize(
    ("rule", "file", "text", "expected"),
    [
        ("folders", "robots/a.py", "from safe_support_ql.safety import x", "robots may not know safety"),
        ("folders", "safety/a.py", "from ..learning import x", "safety may not know learning"),
        ("folders", "safety/a.py", "from ..recording import x", "safety may not know recording"),
        ("folders", "safety/a.py", "def f():\n    import safe_support_ql.nodes.x", "safety may not know nodes"),
        ("folders", "deployment/a.py", "from safe_support_ql import learning", "deployment may not know learning"),
        ("folders", "odd.py", "x = 1", "no line in MAY_KNOW"),
        ("libraries", "safety/a.py", "import torch", "torch belongs in learning"),
        ("libraries", "cli/a.py", "def f():\n    from rclpy.node import Node", "rclpy belongs in nodes"),
        ("libraries", "robots/a.py", "from sensor_msgs.msg import LaserScan", "sensor_msgs belongs in nodes"),
        ("libraries", "nodes/a.py", "import pybullet as p", "pybullet belongs in simulation"),
        ("libraries", "learning/a.py", "import yaml", "yaml belongs in config"),
        ("libraries", "cli/a.py", "import launch", "launch belongs in launch, launching"),
        ("start without torch", "cli/a.py", "from safe_support_ql.learning import trainer", "cli.a starts with torch"),
        ("start without torch", "nodes/monitor.py", "from ..experiments import run", "experiments.run -> "),
        (
            "robots",
            "cli/a.py",
            'HELP = "as with two_link, the default"',
            "cli/a.py:1: generic code may not say 'two_link'",
        ),
        ("robots", "nodes/a.py", "from ..robots.two_link.robot import TwoLink", "may not say 'two_link'"),
        ("robots", "experiments/a.py", "x = 1  # the two-link arm", "may not say 'two-link'"),
        ("robots", "experiments/a.py", "if isinstance(self.robot, Arm):\n    pass", "'isinstance(self.robot,'"),
    ],
)
def test_the_rule_notices(rule: str, file: str, text: str, expected: str, tmp_path: Path) -> None:
    """A rule that cannot fail is none: each is shown a small package that breaks it."""
    package = tmp_path / PACKAGE
    for folder in FOLDERS | {"cli"}:
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "learning/trainer.py").write_text("import torch\n")
    (package / "robots/two_link").mkdir()
    (package / "robots/two_link/robot.py").write_text('"""The two-link arm."""\n\n\nclass TwoLink: ...\n')
    (package / "robots/two_link/__init__.py").touch()
    (package / "__init__.py").write_text('DEFAULT_ROBOT = "two_link"\n')
    (package / "nodes/learner.py").write_text("from safe_support_ql.learning import trainer\n")
    (package / "experiments/lazy.py").write_text("def f():\n    from safe_support_ql.learning import trainer\n")
    assert not RULES[rule](tmp_path)
    (package / "experiments/run.py").write_text("from safe_support_ql.learning import trainer\n")
    (package / file).write_text(text + "\n")
    assert expected in "\n".join(RULES[rule](tmp_path))
