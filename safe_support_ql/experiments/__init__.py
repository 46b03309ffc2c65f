"""Experiments without ROS, with the same gate, robots and learner as the nodes: one file per experiment."""
