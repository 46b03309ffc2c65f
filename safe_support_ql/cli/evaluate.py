"""safe-support-ql evaluate: compare the policies of a run on held-out episodes, without ROS."""

import argparse
import json
import sys
from typing import Any

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import POLICY


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, "folder")
    shared.add_number(parser, "--episodes", 1, "episodes per policy; default 200", 200)
    shared.add(parser, "--workers", "--json")


def run(options: argparse.Namespace) -> int:
    """Play behavior policy, reference and extracted policy from the same starts; 1 if a visit happened."""
    from safe_support_ql.experiments import evaluate

    shared.check_writable(options.json)
    run, settings = shared.open_trained(options.folder)
    model = shared.check_model(run.folder / POLICY, settings, run.continuous)
    print(f"playing {options.episodes} held-out episodes per policy; 200 take a few minutes", file=sys.stderr)
    heads = f"{'success':>8}{'95 % interval':>16}{'return':>9}{'unsafe':>7}{'interv.':>8}{'empty':>8}{'score':>7}"
    print(f"{'policy':11}{heads}", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for name, source in (("behavior", "behavior"), ("reference", "reference"), ("policy", str(model))):
        results = evaluate.evaluate(settings, source, run.continuous, options.episodes, options.workers)
        row = rows[name] = evaluate.summarise(settings, results)
        row["score"] = evaluate.score(rows)
        interval = "{:.3f} .. {:.3f}".format(*row["success_interval95"])
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        print(
            f"{name:11}{row['success_rate']:8.3f}{interval:>16}{row['mean_return']:9.2f}{row['unsafe_visits']:7}"
            f"{row['intervention_rate']:8.4f}{row['empty_support_fraction']:8.4f}{score:>7}".rstrip(),
            flush=True,
        )
    print("score = (J - J_behavior) / (J_reference - J_behavior), J: mean undiscounted return")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2))
    return 1 if any(row["unsafe_visits"] for row in rows.values()) else 0
