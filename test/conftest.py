"""What every test may use: a ROS domain of its own, a robot from outside, Hypothesis settings for any machine."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import hypothesis
import pytest

from safe_support_ql.bringup import in_use

hypothesis.settings.register_profile("any_machine", deadline=None, print_blob=True)
hypothesis.settings.load_profile("any_machine")

ROOT = Path(__file__).resolve().parents[1]

# Domains above 101 use ports that Linux gives to outgoing connections; 0 is where a real robot may be.
DOMAINS = range(1, 102)

# What would lead a test's nodes to other hosts, other settings or the caller's name space.
FOREIGN = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "RMW_FASTRTPS_USE_QOS_FROM_XML",
    "ROS_DISCOVERY_SERVER",
    "ROS_LOCALHOST_ONLY",
    "ROS_NAMESPACE",
    "ROS_STATIC_PEERS",
    "ROS_SUPER_CLIENT",
)

_used = 0


@dataclass(frozen=True)
class RosDomain:
    """A domain that no other test here uses while this one runs; `env` is the whole environment for a child process."""

    id: int
    env: dict[str, str]


def _claim() -> tuple[int, filelock.BaseFileLock]:
    """The next free domain and its lock: a lock file a domain, shared by all test runs of this machine and user."""
    global _used
    folder = Path(tempfile.gettempdir()) / f"ros_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for _ in DOMAINS:
        # Not one just released, here or by a run beside: a killed node is still announced there until its lease ends.
        domain = DOMAINS[(37 * os.getpid() + _used) % len(DOMAINS)]
        _used += 1
        lock = filelock.FileLock(folder / f"{domain}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        if not in_use(domain):
            return domain, lock
        lock.release()
    pytest.fail(f"all ROS domains from 1 to 101 are taken; the locks are in {folder}")


@pytest.fixture
def ros_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RosDomain]:
    """A ROS domain for this test only, on this machine only; also set in this process, and undone afterwards.

    UDP, not shared memory: a killed node leaves its segments in /dev/shm. Logs go to the test's folder.
    """
    domain, lock = _claim()
    try:
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
        monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
        yield RosDomain(domain, dict(os.environ))
    finally:
        lock.release()


@pytest.fixture(scope="session")
def toy_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip installed test/toy_robot; no process looks there yet."""
    folder = tmp_path_factory.mktemp("toy")
    source, target = folder / "source", folder / "site"
    shutil.copytree(ROOT / "test/toy_robot", source)  # a build leaves files beside what it builds
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def toy(toy_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the toy robot's package, as this process and its children find it; a test may change files there.

    It is a copy for this test alone.
    """
    site = tmp_path / "site"
    shutil.copytree(toy_package, site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(site)]))
    yield site / "toy_robot"
    for module in [name for name in sys.modules if name.partition(".")[0] == "toy_robot"]:
        del sys.modules[module]
    importlib.invalidate_caches()
