"""Skeleton of the behavior_policy node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class BehaviorPolicy(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("behavior_policy")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(BehaviorPolicy)


if __name__ == "__main__":
    main()
