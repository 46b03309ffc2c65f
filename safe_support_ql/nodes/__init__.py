"""Thin ROS 2 adapters: one lifecycle node per file, and what nodes share: topics, messages, lifecycle, client."""
