from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "safe_support_ql"
SHARE = f"share/{NAME}"
NODES = ["simulator", "safety_monitor", "behavior_policy", "learner", "inference", "recorder", "conductor"]

# models/<robot>/... keeps its folders; whatever lies in models/ is shipped.
MODELS: dict[str, list[str]] = {}
for path in sorted(Path("models").rglob("*")):
    if path.is_file():
        MODELS.setdefault(f"{SHARE}/{path.parent.as_posix()}", []).append(path.as_posix())

# Lower bounds only: a ROS installation brings its own versions by rosdep. The tested versions are in constraints.txt.
setup(
    name=NAME,
    version="0.1.0",
    description="Safe-Support Q-Learning behind a certified gate, as a ROS 2 package",
    license="Apache-2.0",
    maintainer="safe_support_ql maintainers",
    maintainer_email="maintainers@example.invalid",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", sorted(glob("launch/*.launch.py"))),
        (f"{SHARE}/config", sorted(glob("config/*.*"))),
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
