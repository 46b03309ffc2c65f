"""A light differential-drive base with a lidar, among static obstacles; the default robot."""
