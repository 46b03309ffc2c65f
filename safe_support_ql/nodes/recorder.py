"""Skeleton of the recorder node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class Recorder(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("recorder")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Recorder)


if __name__ == "__main__":
    main()
