"""Skeleton of the safety_monitor node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class SafetyMonitor(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("safety_monitor")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(SafetyMonitor)


if __name__ == "__main__":
    main()
