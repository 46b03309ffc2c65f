"""The learning claim: several seeds trained without ROS, every policy on the same 200 held-out episodes, all shown.

    python benchmarks/seeds.py --robot diff_drive --seeds 5

Two seeds run side by side, one thread each. What is finished is kept in the output folder and not run again, so the
command may be interrupted. Prints a table, writes seeds.json. Score = (J - J_beta) / (J_ref - J_beta) on mean
undiscounted returns; the interval of a mean over seeds is a 95 % bootstrap over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")

from safe_support_ql import config as configuration  # after the thread limit
from safe_support_ql.experiments.evaluate import evaluate, summarise
from safe_support_ql.experiments.train import train
from safe_support_ql.recording.bounds import rate_upper_bound
from safe_support_ql.recording.files import POLICY, write_atomically


def cached(path: Path, make: Any) -> Any:
    """The JSON at `path`, made now if it is not there."""
    if not path.exists():
        write_atomically(path, json.dumps(make(), indent=2).encode())
    return json.loads(path.read_text())


def one_seed(raw: dict[str, Any], continuous: bool, seed: int, episodes: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one seed."""
    import torch

    torch.set_num_threads(1)
    config = configuration.parse(raw, "configuration")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / POLICY
    training = cached(folder / "training.json", lambda: asdict(train(raw, continuous, seed, path)))
    policy = cached(
        folder / "policy-evaluation.json",
        lambda: summarise(config, evaluate(config, str(path), continuous, episodes)),
    )
    return {"seed": seed, "training": training, "policy": policy}


def bootstrap(values: list[float]) -> tuple[float, float]:
    """95 % interval of the mean over seeds."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (10_000, len(values))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="diff_drive")
    parser.add_argument("--actions", choices=("discrete", "continuous"), default="discrete")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    overrides = {key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    config = configuration.load_robot(arguments.robot, overrides)
    continuous = arguments.actions == "continuous"
    out = arguments.out or Path("runs") / f"seeds-{arguments.robot}-{arguments.actions}"
    out.mkdir(parents=True, exist_ok=True)
    raw = dict(config.raw)

    baselines = {
        name: cached(
            out / f"{name}.json",
            lambda name=name: summarise(
                config, evaluate(config, name, continuous, arguments.episodes, arguments.workers)
            ),
        )
        for name in ("behavior", "reference")
    }
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(one_seed, raw, continuous, s, arguments.episodes, out / f"seed-{s}")
            for s in range(arguments.seeds)
        ]
        rows = [job.result() for job in jobs]

    low, high = baselines["behavior"]["mean_return"], baselines["reference"]["mean_return"]
    print(f"{'':14}{'success':>9}{'95 % interval':>18}{'return':>9}{'score':>7}{'visits':>8}{'empty':>8}{'plan':>8}")
    for label, row in (*baselines.items(), *((f"policy, seed {row['seed']}", row["policy"]) for row in rows)):
        interval = "{:.3f} .. {:.3f}".format(*row["success_interval95"])
        score = (row["mean_return"] - low) / (high - low)
        print(
            f"{label:14}{row['success_rate']:9.3f}{interval:>18}{row['mean_return']:9.2f}{score:7.3f}"
            f"{row['unsafe_visits']:8d}{row['empty_support_fraction']:8.4f}{row['intervention_rate']:8.4f}"
        )
    success = [row["policy"]["success_rate"] for row in rows]
    scores = [(row["policy"]["mean_return"] - low) / (high - low) for row in rows]
    visits = sum(row["training"]["unsafe_visits"] for row in rows)
    ticks = sum(row["training"]["control_ticks"] for row in rows)
    print(f"success over {len(rows)} seeds: mean {np.mean(success):.3f}, 95 % {bootstrap(success)}")
    print(f"score over {len(rows)} seeds: mean {np.mean(scores):.3f}, 95 % {bootstrap(scores)}")
    bound = rate_upper_bound(visits, ticks * config.robot.period / 3600)
    print(f"unsafe visits while learning: {visits} in {ticks} control ticks, < {bound:.2f} per simulated hour (95 %)")
    (out / "seeds.json").write_text(
        json.dumps(
            {"baselines": baselines, "seeds": rows, "success": success, "success_interval95": bootstrap(success),
             "score": scores, "score_interval95": bootstrap(scores), "unsafe_visits": visits, "control_ticks": ticks},
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
