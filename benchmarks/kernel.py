"""The share of the cart-pole's viability kernel that the shipped certificate certifies, and its false accepts.

    python benchmarks/kernel.py --json kernel.json

About five minutes on one core. Kernels are outer approximations (safe_support_ql/experiments/kernel.py): a share is
a lower bound of the true one. `no R` repeats it with the linear models taken as exact, which bounds nothing and tells
how much of what is missing may be the approximation. Exits with 1 if there is a false accept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # after the thread limit

from safe_support_ql import config as configuration
from safe_support_ql.experiments.kernel import Truth, certified_share, outer_kernel, spec_of, unsafe_on_truth
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.certificate import Certifier


def certificate_ms(robot: Robot, actions: int, states: int = 500) -> dict[str, float]:
    """Time to certify `actions` candidates in one state, over states spread in the middle of S."""
    rng = np.random.default_rng(0)
    certificate, band = Certifier(robot.model, 4, 1), robot.model.certificate.band
    forces, points = np.linspace(-robot.action_high[0], robot.action_high[0], actions)[:, None], np.zeros((0, 2))
    taken = []
    for z in rng.uniform(-1.0, 1.0, (states, 4)) * [0.8, 0.12, 0.8, 0.8]:
        start = time.perf_counter()
        certificate(z, np.zeros((1, 0, 1)), (0,), forces, points, len(robot.model.certificate.centres) // 2, band)
        taken.append(1e3 * (time.perf_counter() - start))
    return {"median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99))}


def main() -> None:
    """Compute the kernels, ask the gate, play on PyBullet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=2000, help="states drawn for each row")
    parser.add_argument("--plays", type=int, default=1000, help="certified pairs played on each truth")
    parser.add_argument("--facets", type=int, default=400, help="slabs of each member's kernel")
    parser.add_argument("--ticks", type=int, default=60, help="control periods that a trajectory must stay in S")
    parser.add_argument("--cells", type=int, default=21, help="grid cells along each axis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--json", type=Path, default=None)
    a = parser.parse_args()
    overrides = {key: json.loads(value) for key, value in (item.split("=", 1) for item in a.set)}
    config = configuration.load_robot("cart_pole", overrides)
    robot = config.robot
    members = range(len(robot.model.dynamics.members))
    outer = {j: outer_kernel(robot, j, a.ticks, a.facets, seed=a.seed) for j in members}
    loose = {j: outer_kernel(robot, j, a.ticks, a.facets, seed=a.seed, slack=0.0) for j in members}

    result: dict[str, Any] = {"settings": {k: v for k, v in vars(a).items() if k != "json"}, "kernels": {}, "truth": {}}
    print(f"{'kernel':9}{'actions':12}{'volume':>8}{'pairs':>8}{'certified':>11}{'95 % interval':>17}", end="")
    print(f"{'full band':>11}{'margin 0':>10}{'no R':>7}{'outside':>9}")
    for name in ("robust", "nominal"):
        chosen = members if name == "robust" else (0,)
        for actions in ("continuous", "discrete"):
            row = certified_share(
                config, {j: outer[j] for j in chosen}, actions == "continuous", a.states, a.cells, a.seed
            )
            row["share_without_residual"] = certified_share(
                config, {j: loose[j] for j in chosen}, actions == "continuous", a.states, a.cells, a.seed
            )["share"]
            interval = "{:.3f} .. {:.3f}".format(*row["share_interval95"])
            print(
                f"{name:9}{actions:12}{row['volume']:8.2f}{row['pairs']:8d}{row['share']:11.3f}{interval:>17}"
                f"{row['share_at_full_band']:11.3f}{row['share_at_zero_margin']:10.3f}"
                f"{row['share_without_residual']:7.3f}{row['certified_outside']:9d}",
                flush=True,
            )
            result["kernels"][f"{name} {actions}"] = row
    for name, drive in spec_of(robot).truths.items():
        truth = Truth(robot, **drive)
        row = unsafe_on_truth(config, outer, truth, a.plays, a.cells, a.seed)
        truth.close()
        print(f"PyBullet, {name}: {row['unsafe']} unsafe of {row['pairs']}, < {row['unsafe_rate_upper95']:.4f} at 95 %")
        result["truth"][name] = row
    for count in (5, 21):
        result[f"certificate_ms_{count}"] = taken = certificate_ms(robot, count)
        print(f"certificate of {count} candidates: median {taken['median']:.3f} ms, p99 {taken['p99']:.3f} ms")
    # Pairs outside the nominal kernel alone are outside the robust one, so both rows count.
    accepts = sum(row["certified_outside"] for row in result["kernels"].values())
    result["false_accepts"] = accepts + sum(row["unsafe"] for row in result["truth"].values())
    print(f"false accepts: {result['false_accepts']}")
    left = sum(row["certified_where_s_is_left_already"] for row in result["kernels"].values())
    print(f"certified although the present state is outside S, where a visit has begun before: {left}")
    if a.json:
        a.json.write_text(json.dumps(result, indent=2))
    sys.exit(result["false_accepts"] > 0)


if __name__ == "__main__":
    main()
