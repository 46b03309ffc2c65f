"""Skeleton of the inference node."""

from __future__ import annotations

from safe_support_ql.nodes import lifecycle


class Inference(lifecycle.ManagedNode):
    """To be filled."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("inference")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Inference)


if __name__ == "__main__":
    main()
