"""Skeleton of the learner node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class Learner(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("learner")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Learner)


if __name__ == "__main__":
    main()
