"""Skeleton of the simulator node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class Simulator(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("simulator")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Simulator)


if __name__ == "__main__":
    main()
