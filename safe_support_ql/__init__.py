"""Safe-Support Q-Learning behind a certified gate, as a ROS 2 package."""

__version__ = "0.1.0"
DEFAULT_ROBOT = "diff_drive"  # where none is named
