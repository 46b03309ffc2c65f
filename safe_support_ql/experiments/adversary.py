"""Plays the adversary against the gate: every error is exactly zero except the chosen ones.

The truth is the model's own arithmetic, not PyBullet, because only then can an error be exactly zero: the state is
measured exactly, obstacles are known without a lidar, and the truth is judged at the certificate's own checks. Chosen
errors are added, see TrueWorld in robots/claims.py. The adversary requests the certified action of least margin, found
on a fine grid, and after that lets the plan run until it is at rest.
"""

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats
from safe_support_ql.robots.claims import Adversary, Truth
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.timing import Clock

ROUNDING = 1e-9  # in the unit of h; a true margin below minus this is a visit
LONGEST = 400  # ticks of an encounter
LETHAL = 0.005  # the monitor dies after an action with a scaled margin below this
STOPPED = 20  # checks that are judged after the drive's own timeout


def least_certified(gate: Gate, estimate: Estimate, actions: Floats) -> Floats | None:
    """Of actions[K, A] along a line, the one of least margin that the gate accepts; None if it accepts none.

    It is refined between the last accepted and the first refused action.
    """
    support, model = gate.support, gate.support.robot.model
    assert gate.cycle is not None
    in_band = (
        support.in_band
        and support.spent + model.certificate.step_residual <= model.certificate.band_budget
        and not support.surcharge
    )
    least = support.threshold if in_band else model.certificate.band + support.surcharge
    for _ in range(3):
        margin, _ = support._certify(estimate, gate.cycle.timing, actions.astype(np.float32))
        if not (margin >= least).any():
            return None
        best = int(np.argmin(np.where(margin >= least, margin, np.inf)))
        beside = [i for i in (best - 1, best + 1) if 0 <= i < len(actions) and margin[i] < least]
        chosen = actions[best]
        if not beside:
            return chosen
        actions = np.linspace(chosen, actions[beside[0]], 21)
    return chosen


def encounter(
    gate: Gate, adversary: Adversary, truth: Truth, rng: np.random.Generator, number: int, stamped: bool = True
) -> float:
    """Play episode `number` (larger than the last one) of the adversary with the errors `truth`.

    `stamped`: an old state carries its own stamp; otherwise the stamp of a new state. Returns the smallest true margin
    of the episode, or inf if nothing is certified at the start. A margin below -ROUNDING is unsafe and ends the
    episode.
    """
    robot = gate.robot
    dynamics, silence = robot.model.dynamics, np.asarray(robot.silence, np.float64)
    period = int(1e9 / robot.world.control_hz)
    world = adversary.world(robot, truth, rng)
    behind, hidden = truth.get("behind", {}), truth.get("hidden", {})
    before = world.age(0) + max(behind.values(), default=0)
    latency = (0.0, 1e-9) if gate.clock is Clock.REALTIME else None
    sensed = [world.sense()]
    for _ in range(before):  # before the first command
        world.tick(silence)
        sensed.append(world.sense())
    gate.opening_states = 1  # the robot moves at its start, and cannot wait there
    gate.new_episode(number)
    if behind:  # the other channels were heard when the first such message was measured
        for k, inputs in enumerate(sensed[:-1]):
            then = (1000 * number + k + 2) * period
            for channel in inputs.keys() - behind.keys():
                gate.receive(channel, inputs[channel], then, then, then)
    least = np.inf
    for tick in range(LONGEST):
        now = (1000 * number + tick + 2 + before) * period  # a steady clock never goes back
        age = world.age(tick)
        for channel in sensed[-1]:
            late = behind.get(channel, 0)
            stamp = now - ((age if stamped else 0) + late - hidden.get(channel, 0)) * period
            gate.receive(channel, sensed[-1 - age - late][channel], stamp, now, now)
        candidates = gate.begin(now, now, latency)
        assert candidates is not None, gate.cause
        if tick == 0 and not candidates.certified.any():
            break  # the start is not certified
        decision = None
        if world.attacking(tick):
            assert gate.cycle is not None  # there are candidates
            action = least_certified(gate, gate.cycle.estimate, world.actions())
            if action is not None:
                decision = gate.request(candidates.id, action.astype(np.float32), now)
        acted = decision is not None and decision.verdict.startswith("certified")
        decision = decision or gate.expire(now)
        least = min(least, world.tick(decision.action.astype(np.float64)))
        sensed.append(world.sense())
        if truth.get("dies") and acted and decision.candidates.margin[decision.index] < LETHAL:  # type: ignore[union-attr]  # certified
            # The monitor dies: the drive holds the command for its own timeout, then stops.
            more = int(np.ceil(truth["dies"] / dynamics.dt)) - dynamics.checks_per_tick
            return min(least, world.tick(decision.action.astype(np.float64), more), world.tick(silence, STOPPED))
        if least < -ROUNDING:
            break
        if not acted and tick > world.attacks and world.settled(robot.model.certificate.centre(gate.support.centre)):
            break
    return float(least)
