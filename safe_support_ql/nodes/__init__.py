"""Thin ROS 2 adapters: one lifecycle node a file, and the one file that turns vectors into messages and back."""
