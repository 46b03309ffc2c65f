"""What a policy earns beside what it promised: when a robot that drives it would take it back.

    python benchmarks/calibration.py POLICY [--config FILE | --profile NAME] [--episodes 60] [--worlds nominal ...]

Lock-step, without ROS, with the watch of the inference node (deployment/watch.py). For each world: the mean gap between
the return of a stretch of 1 / (1 - gamma) ticks and its promise, in standard deviations of the value (bias/std), the
least mean of so many stretches in a row as the watch looks at, and in which stretch it would have acted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from safe_support_ql import config as configuration
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.deployment.watch import Calibration, DeploymentConfig
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.experiments.worlds import in_world, names
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.simulation import Simulation

ENOUGH = 100_000  # stretches that are kept


def gaps(settings: configuration.Config, path: Path, world: str, episodes: int) -> list[float]:
    """The gap of every stretch of these held-out episodes."""
    robot = settings.robot
    policy = OnnxPolicy(path, PolicyContract.of(robot, False, settings.safety_hash))
    if not policy.promises:
        raise SystemExit(f"{path}: has no value network; learn again")
    watch = DeploymentConfig(stretches=ENOUGH - 1, shortfall=100.0)
    calibration = Calibration(watch, policy.manifest.gamma, policy.manifest.training)
    gate, sim = Gate(robot, settings.gate, False, 0), Simulation(in_world(robot, world))
    actor = Actor(policy, 0, passive_stop=robot.passive_stop)
    for number, seed in enumerate(HELD_OUT[:episodes]):
        first = True
        for outcome, _ in steps(sim, gate, actor, seed, number):
            over = outcome.terminated or outcome.truncated
            calibration.note(np.nan if over else actor.value, outcome.reward, first, outcome.terminated)
            first = False
    sim.close()
    return list(calibration.gaps)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument(
        "--config", type=Path, help="as the policy was trained; default: beside it, or diff_drive's own"
    )
    parser.add_argument("--profile")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--worlds", nargs="+", help="default: all that the robot declares")
    options = parser.parse_args()
    beside = options.policy.with_name("config.yaml")
    path = options.config or (configuration.profile(options.profile) if options.profile else beside)
    settings = configuration.load(path if path.exists() else configuration.default_path("diff_drive"))
    watch = settings.deployment
    print(f"{'world':<24}{'stretches':>10}{'bias/std':>10}{'RMSE/std':>10}{'least mean':>12}  taken back")
    for world in options.worlds or names(settings.robot):
        found = np.array(gaps(settings, options.policy, world, options.episodes))
        windows = np.convolve(found, np.full(watch.stretches, 1.0 / watch.stretches), "valid")
        acts = np.flatnonzero(windows < -watch.shortfall)
        when = f"at stretch {acts[0] + watch.stretches}" if len(acts) else "never"
        least = f"{windows.min():.2f}" if len(windows) else "-"
        print(
            f"{world:<24}{len(found):>10}{found.mean():>10.2f}{np.sqrt((found**2).mean()):>10.2f}{least:>12}  {when}",
            flush=True,
        )


if __name__ == "__main__":
    main()
