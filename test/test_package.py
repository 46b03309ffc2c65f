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
    "task",
    "safety_monitor",
    "behavior_policy",
    "teleoperation",
    "learner",
    "inference",
    "recorder",
    "conductor",
}
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SHIPPED = sorted(
    path.relative_to(ROOT)
    for pattern in ("launch/*.launch.py", "config/*.*", "config/profiles/*.yaml", "models/**/*")
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


def test_a_sourced_workspace_has_the_command_on_path(workspace: Path, prefix: Path) -> None:
    code = f". '{workspace}/install/local_setup.sh' && command -v safe-support-ql && safe-support-ql --help"
    said = run("sh", "-c", code, cwd=workspace)
    assert said.startswith(f"{prefix}/bin/safe-support-ql\n") and "train" in said


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


def test_rosdep_finds_every_key_with_apt() -> None:
    """One key that it lacks, or that wants pip in Ubuntu's own Python, and `rosdep install` installs nothing at all."""
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    keys = {node.text or "" for node in package if node.tag.endswith("depend")}
    checked = "filelock hypothesis matplotlib mypy numpy psutil pytest pytest-timeout rich scipy yaml"  # for noble
    assert {key for key in keys if key.startswith("python3-")} == {f"python3-{name}" for name in checked.split()}
    assert "ros2launch" in keys and not [key for key in keys if key.endswith("-pip")]


INSTALL = ROOT / "scripts" / "install_jazzy"


def refused(script: Path, **environment: str) -> str:
    """What the script says where it cannot go on."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHON": sys.executable} | environment
    done = subprocess.run([script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout, done
    return done.stderr


def test_the_installation_says_what_is_missing_before_it_makes_anything(tmp_path: Path) -> None:
    assert "ros-jazzy-ros-base" in refused(INSTALL, ROS_PREFIX=str(tmp_path))
    ros = tmp_path / "jazzy"
    ros.mkdir()
    (ros / "setup.bash").write_text(f"export ROS_DISTRO=jazzy AMENT_PREFIX_PATH={ros}\n")
    assert "humble is active" in refused(INSTALL, ROS_PREFIX=str(ros), ROS_DISTRO="humble")

    clone = tmp_path / "ws" / "src" / NAME
    for name in ("scripts/install_jazzy", "package.xml"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name)
    said = refused(clone / "scripts" / "install_jazzy", ROS_PREFIX=str(ros))
    (command,) = re.findall(r"sudo apt install .*", said)
    assert {"ros-jazzy-rclpy", "ros-jazzy-ros2launch", "ros-jazzy-visualization-msgs"} <= set(command.split())
    assert not [path for path in (tmp_path / "ws").rglob("*") if "venv" in path.name]

    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(clone, tmp_path / "elsewhere"))
    assert "not in a colcon workspace" in refused(moved / "scripts" / "install_jazzy", ROS_PREFIX=str(ros))


@pytest.mark.parametrize("options", [[], ["--symlink-install"]])
def test_nodes_and_launch_files_find_the_environment_of_the_installation(
    workspace: Path, tmp_path: Path, options: list[str]
) -> None:
    """Nodes run on its Python, even if colcon does not; `ros2 launch` runs on the system's and sees its packages."""
    venv = tmp_path / "venv"
    modules = venv / "lib/python{}.{}/site-packages".format(*sys.version_info) / "only_there.py"
    modules.parent.mkdir(parents=True)
    modules.touch()
    shutil.copytree(workspace / "src", tmp_path / "src")
    (tmp_path / "src" / NAME / NAME / "venv.txt").write_text(f"{venv}\n")
    run(Path(sys.executable).with_name("colcon"), "build", "--executor", "sequential", *options, cwd=tmp_path)
    prefix = tmp_path / "install" / NAME
    assert (prefix / "lib" / NAME / "learner").read_text().startswith(f"#!{venv}/bin/python\n")
    system = getattr(sys, "_base_executable", sys.executable)
    code = f". install/local_setup.sh && '{system}' -c 'import {NAME}, only_there'"
    run("sh", "-c", code, cwd=tmp_path)


def test_the_installation_changes_pins_that_there_are() -> None:
    """Of constraints.txt it takes all but these; under another name they would silently stay as they are."""
    changed = re.findall(r"s/\^(\w+)==", INSTALL.read_text())
    pins = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert changed == ["numpy", "ml_dtypes"] and set(changed) <= set(pins)


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
