import sys
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "safe_support_ql"
SHARE = f"share/{NAME}"
NODES = [
    "simulator",
    "task",
    "safety_monitor",
    "behavior_policy",
    "teleoperation",
    "learner",
    "inference",
    "recorder",
    "conductor",
]

# models/<robot>/... keeps its folders; whatever lies in models/ is shipped.
MODELS: dict[str, list[str]] = {}
for path in sorted(Path("models").rglob("*")):
    if path.is_file():
        MODELS.setdefault(f"{SHARE}/{path.parent.as_posix()}", []).append(path.as_posix())

# The executables run in the virtual environment of scripts/install_jazzy, if it was called; else on colcon's Python.
# Not by build_scripts' option `executable`: `colcon build --symlink-install` does not heed it.
VENV = Path(__file__).resolve().with_name(NAME) / "venv.txt"
if VENV.exists():
    sys.executable = f"{VENV.read_text().strip()}/bin/python"

# `ros2 run` looks in lib/<package>/, a shell in bin/, which colcon adds to PATH. A wheel has the command there anyway.
BIN = [] if "bdist_wheel" in sys.argv else [("bin", ["scripts/safe-support-ql"])]

# Lower bounds only: a ROS installation brings its own versions. The tested versions are in constraints.txt.
setup(
    name=NAME,
    version="0.1.0",
    description="Safe-Support Q-Learning behind a certified gate, as a ROS 2 package",
    license="Apache-2.0",
    maintainer="safe_support_ql maintainers",
    maintainer_email="maintainers@example.invalid",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    python_requires=">=3.11",
    package_data={NAME: ["venv.txt"]},
    data_files=[
        *BIN,
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", sorted(glob("launch/*.launch.py"))),
        (f"{SHARE}/config", sorted(glob("config/*.*"))),
        (f"{SHARE}/config/profiles", sorted(glob("config/profiles/*.yaml"))),
        *sorted(MODELS.items()),
    ],
    zip_safe=False,
    install_requires=[
        "setuptools",
        "filelock",
        "gymnasium>=1.0",
        "matplotlib>=3.6",
        "numba>=0.58",
        "numpy>=1.26",
        "onnx>=1.16",
        "onnxruntime>=1.18",
        "onnxscript>=0.2",
        "psutil",
        "pybullet>=3.2.5",
        "pyyaml>=6.0",
        "rich>=13",
        "scipy>=1.11",
        "tensorboard",
        "torch>=2.5",
    ],
    extras_require={
        # ROS 2 Jazzy without a ROS installation. Not above: next to a sourced ROS these would be a second rclpy.
        "ros": [
            "ros-jazzy-rclpy",
            "ros-rclpy[fastrtps]",
            "ros-jazzy-rmw-fastrtps-cpp",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-lifecycle-msgs",
            "ros-jazzy-nav-msgs",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
            "ros-jazzy-trajectory-msgs",
            "ros-jazzy-visualization-msgs",
        ],
        # Runs as rosbag2 bags, and learning from these; see docs/bags.md.
        "bags": ["rosbags>=0.10"],
        # Learners that ours is compared with, behind the same gate; see docs/gymnasium.md.
        "peers": ["sb3-contrib>=2.4", "stable-baselines3>=2.4"],
        "test": [
            "colcon-core",
            "colcon-ros",
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-timeout",
            "ruff",
            "scipy-stubs",
            "types-PyYAML",
        ],
    },
    entry_points={
        "console_scripts": [
            f"safe-support-ql = {NAME}.cli:main",
            *(f"{node} = {NAME}.nodes.{node}:main" for node in NODES),
        ],
    },
)
