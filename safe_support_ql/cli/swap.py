"""safe-support-ql swap: let another validated policy drive, while the robot drives."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="a policy.onnx with a report that passed")
    which.add_argument("--back", action="store_true", help="go back to the policy before")


def run(options: argparse.Namespace) -> int:
    """2 if the policy is refused; what drove before then goes on."""
    from safe_support_ql.nodes import swap

    if options.model is not None and not options.model.exists():
        raise ValueError(f"{options.model}: no such policy; give the path of a policy.onnx")
    news = swap.ask(None if options.back else options.model)
    if news.said.startswith("refused: "):
        raise ValueError(news.said.removeprefix("refused: "))
    print(f"policy {news.epoch}: {news.said} {news.path}".rstrip())
    return 0
