"""Safe-Support Q-Learning behind a certified gate, as a ROS 2 package."""

import site
import sys
from pathlib import Path

__version__ = "0.1.0"
DEFAULT_ROBOT = "diff_drive"  # where none is named

# `ros2 launch` runs on the system's Python. What that lacks is in the environment that scripts/install_jazzy made; what
# it has comes first, as ROS is built for it.
_venv = Path(__file__).with_name("venv.txt")
if sys.prefix == sys.base_prefix and _venv.exists():
    site.addsitedir("{}/lib/python{}.{}/site-packages".format(_venv.read_text().strip(), *sys.version_info))
