"""Runs without ROS, over the same gate, robots and learner."""
