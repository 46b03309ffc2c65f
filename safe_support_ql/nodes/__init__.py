"""Thin ROS 2 adapters: one lifecycle node a file, and what they share: topics, codecs, the client."""
