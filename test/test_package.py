"""The package as ROS users get it: built by colcon, found by ament, its launch files loadable."""

from __future__ import annotations

import ast
import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NAME = "safe_support_ql"
EXECUTABLES = {
    "safe-support-ql",
    "simulator",
    "safety_monitor",
    "behavior_policy",
    "learner",
    "inference",
    "recorder",
    "conductor",
}
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SHIPPED = sorted(
    path.relative_to(ROOT)
    for pattern in ("launch/*.launch.py", "config/*.*", "models/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    # Nothing of an active workspace: what is checked here has to come out of the build.
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "AMENT_PREFIX_PATH"}}
    done = subprocess.run(command, cwd=cwd, env=env | environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colcon workspace with a copy of the tracked files, so that nothing untracked can make the build pass."""
    root = tmp_path_factory.mktemp("workspace")
    source = root / "src" / NAME
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
    else:  # an unpacked archive holds nothing else
        made_here = shutil.ignore_patterns(".*", "runs", "build", "install", "log", "*.egg-info")
        shutil.copytree(ROOT, source, ignore=made_here)
    return root


@pytest.fixture(scope="module")
def prefix(workspace: Path) -> Path:
    """Where colcon installed the package. colcon comes from this environment, not from a ROS installation."""
    colcon = Path(sys.executable).with_name("colcon")
    if not colcon.exists():
        pytest.fail(f"{colcon} is missing: python3 -m pip install -c constraints.txt '.[test]'")
    run(colcon, "build", "--executor", "sequential", cwd=workspace)
    return workspace / "install" / NAME


def test_colcon_sees_an_ament_python_package(workspace: Path, prefix: Path) -> None:
    """Not a plain Python one, which a [project] table would make it: then package.xml's dependencies are lost."""
    text = (workspace / "log" / "latest_build" / "logger_all.log").read_text()
    kinds = re.findall(rf"Package 'src/{NAME}' with type '([^']+)' and name '([^']+)'", text)
    assert set(kinds) == {("ros.ament_python", NAME)}


def test_ros2_run_finds_every_executable(prefix: Path) -> None:
    """`ros2 run` and launch's Node(executable=...) look in lib/<package>/ and nowhere else."""
    scripts = {path.name: path for path in (prefix / "lib" / NAME).iterdir()}
    assert set(scripts) == EXECUTABLES
    assert all(os.access(path, os.X_OK) for path in scripts.values())


def test_an_installed_executable_starts(prefix: Path) -> None:
    (modules,) = prefix.glob("lib/python3.*/site-packages")
    script = prefix / "lib" / NAME / "safe-support-ql"
    environment = {"PYTHONPATH": str(modules), "AMENT_PREFIX_PATH": str(prefix)}
    assert "train" in run(script, "--help", cwd=prefix, **environment)


def test_ament_finds_the_installed_share_folder(prefix: Path) -> None:
    code = f"import ament_index_python as a; print(a.get_package_share_directory({NAME!r}))"
    found = run(sys.executable, "-c", code, cwd=prefix, AMENT_PREFIX_PATH=str(prefix)).strip()
    assert Path(found) == prefix / "share" / NAME


def test_launch_config_and_models_are_installed(workspace: Path, prefix: Path) -> None:
    share = prefix / "share" / NAME
    assert (share / "package.xml").is_file()
    tracked = [path for path in SHIPPED if (workspace / "src" / NAME / path).is_file()]
    assert {path.parts[0] for path in tracked} >= {"launch", "config"}
    assert not [str(path) for path in tracked if (share / path).read_bytes() != (ROOT / path).read_bytes()]


def test_installed_modules_are_the_tracked_ones(workspace: Path, prefix: Path) -> None:
    source = workspace / "src" / NAME / NAME
    (installed,) = prefix.glob(f"lib/python3.*/site-packages/{NAME}")
    assert {p.relative_to(installed) for p in installed.rglob("*.py")} == {
        p.relative_to(source) for p in source.rglob("*.py")
    }


@pytest.mark.parametrize("executable", sorted(EXECUTABLES))
def test_every_executable_has_a_main(executable: str) -> None:
    """An entry point is a string that nothing checks before somebody starts it."""
    (entry,) = [e for e in metadata.distribution(NAME).entry_points if e.name == executable]
    module = ROOT / entry.module.replace(".", "/")
    path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    assert path.is_file(), f"{executable} = {entry.value}: no {path.relative_to(ROOT)}"
    functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert entry.attr in functions


def test_package_xml_and_setup_py_agree() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    meta = metadata.metadata(NAME)
    for tag, key in {"name": "Name", "version": "Version", "license": "License", "maintainer": "Maintainer"}.items():
        assert package.findtext(tag) == meta[key].replace("-", "_" if tag == "name" else "-"), tag


def test_every_requirement_is_pinned() -> None:
    def plain(name: str) -> str:
        return name.lower().replace("_", "-")

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert not [version for version in pins.values() if "+" in version]  # a local build cannot be asked for elsewhere
    asked = {plain(Requirement(text).name) for text in metadata.requires(NAME) or []}
    assert not asked - {plain(name) for name in pins}


def test_launch_files_compile(tmp_path: Path) -> None:
    assert LAUNCH_FILES
    for path in LAUNCH_FILES:
        py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)


def test_launch_files_load() -> None:
    """Loaded for real where ROS brings `launch`, which the wheels do not: the one test that may be skipped."""
    if importlib.util.find_spec("launch") is None or importlib.util.find_spec("launch_ros") is None:
        pytest.skip("launch and launch_ros come with a ROS installation only; the launch files were only compiled")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    for path in LAUNCH_FILES:
        description = get_launch_description_from_python_launch_file(str(path))
        assert all(argument.description for argument in description.get_launch_arguments()), path.name
