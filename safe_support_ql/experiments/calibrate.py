"""Compares the shipped margin parameters with the smallest that would have covered every recorded backup manoeuvre.

Each independent, seeded episode gives one manoeuvre: the behavior policy drives behind the gate, then one certified
action and the stored plan run with no further request. The truth is PyBullet's at every sub-step. A deviation is
h_predicted - h_truth, in the unit of h: by how much the prediction was too optimistic.

There are two predictions. `needed` takes the worst member, as the certificate does, so the ensemble helps. `alone`
takes the first member, the nominal model, and shows the model's own residual. The physical parameters of the ensemble
are estimated from each manoeuvre separately, by least squares over its ticks.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import beta

from safe_support_ql import config as configuration
from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import Policy, look
from safe_support_ql.experiments.worlds import in_world
from safe_support_ql.recording.seeds import CALIBRATION
from safe_support_ql.robots.base import Estimate, Floats, Robot
from safe_support_ql.robots.claims import NOMINAL, CalibrationSpec, Ensemble
from safe_support_ql.robots.model import Columns, advance, columns
from safe_support_ql.safety.gate import Decision, Gate
from safe_support_ql.simulation.simulation import Simulation

CONFIDENCE = 0.95
LONGEST_S = 6.0  # the manoeuvre begins up to this long after the start of its episode
SPREAD = 5.0  # a parameter of `scale`, which no tick of an unchanged robot reaches, is this many standard deviations
TOLD = 1.0 / 3.0  # a manoeuvre shows a factor if its standard error is below this share of the factor's range
LOWEST, HIGHEST = 0.2, 5.0  # bounds of the search for a factor
BY = "calibrate"


@dataclass(frozen=True)
class Manoeuvre:
    """Deviations of one manoeuvre; T checks, n constraints."""

    seed: int
    needed: Floats  # [T + 1, n] against the worst member
    alone: Floats  # [T + 1, n] against the first member
    end: int  # check at which the last member has reached S_f
    between: Floats  # [n] how far the truth falls between two checks, below the lower of both
    room: Floats  # [n] least (truth - claim of the certificate, with scan points and tightening); below 0 it is wrong
    errors: Floats  # largest |estimate - truth|, in the order of CalibrationSpec.errors
    creep: float  # m
    lidar: float  # m, largest distance of scan points beyond the obstacles of the map; -inf without a lidar
    factors: Floats  # of the nominal model's physical parameters, see _fit()
    unsafe_visits: int


@dataclass(frozen=True)
class Line:
    """One margin parameter: shipped value and need of the manoeuvres; `alone` is None if the ensemble has no effect."""

    name: str
    unit: str
    shipped: float
    needed: float
    alone: float | None = None

    @property
    def verdict(self) -> str:
        """'yes', 'by the ensemble' (the nominal model alone would need more than is shipped), or 'NO'."""
        if self.needed > self.shipped:
            return "NO"
        return "by the ensemble" if self.alone is not None and self.alone > self.shipped else "yes"


@dataclass(frozen=True)
class Factor:
    """One physical parameter as a factor on nominal: range of the ensemble, and range found in `told` manoeuvres."""

    name: str
    shipped: tuple[float, float]
    found: tuple[float, float]
    told: int

    @property
    def verdict(self) -> str:
        """'yes', 'not shown' (by any manoeuvre) or 'NO'."""
        if not self.told:
            return "not shown"
        return "yes" if self.shipped[0] <= self.found[0] and self.found[1] <= self.shipped[1] else "NO"


@dataclass(frozen=True)
class Calibration:
    """The result. `coverage` is for one line, `coverage_pair` for two numbers that are fitted together."""

    episodes: int
    population: str
    lines: tuple[Line, ...]
    factors: tuple[Factor, ...]
    room: Mapping[str, float]
    coverage: float
    coverage_pair: float
    unsafe_visits: int
    manoeuvres: tuple[Manoeuvre, ...] = field(repr=False)

    @property
    def too_small(self) -> list[str]:
        """Names of margin parameters and ranges that did not cover every manoeuvre."""
        names = [line.name for line in self.lines if line.verdict == "NO"]
        names += [factor.name for factor in self.factors if factor.verdict == "NO"]
        return names + [f"whole tightening of {name}" for name, room in self.room.items() if room < 0.0]


def covered(episodes: int, fitted: int = 1) -> float:
    """Share p of the population that the largest of N = `episodes` independent needs covers, with CONFIDENCE.

    For one number the confidence is 1 - p^N. With more numbers `fitted` to the same manoeuvres, the tail of the
    binomial distribution (scenario bound) replaces p^N.
    """
    return float(beta.ppf(1.0 - CONFIDENCE, episodes - fitted + 1, fitted)) if episodes >= fitted else 0.0


def calibrate(config: configuration.Config, episodes: int, world: str = NOMINAL) -> Calibration:
    """Play until `episodes` manoeuvres are recorded. `world` names one of the robot's mismatches.

    Raises ValueError for a robot without the claim, an unknown world, a margin of 0, or too few manoeuvres.
    """
    robot = config.robot
    spec: CalibrationSpec = robots.claimed(robot, "calibration", BY)
    if episodes < 1:
        raise ValueError(f"--episodes is {episodes}, must be 1 or more")
    zero = [name for name in (*spec.model, *spec.growth) if not _value(robot, name) > 0.0]
    if zero:
        raise ValueError(f"{zero[0]} is 0, must be above 0: the need is found by scaling it")
    sim, gate = Simulation(in_world(robot, world)), Gate(robot, config.gate, False, CALIBRATION.start)
    found: list[Manoeuvre] = []
    for number in range(10 * episodes):
        seed = CALIBRATION.start + number
        one = _manoeuvre(sim, gate, BehaviorPolicy(config.behavior, robot, seed), spec, seed, number)
        found += [one] if one is not None else []
        if len(found) == episodes:
            break
    sim.close()
    if len(found) < episodes:
        raise ValueError(f"only in {len(found)} of {10 * episodes} episodes the robot moved; is the support empty?")
    fitted, room = bool(spec.model) + bool(spec.growth), np.min([one.room for one in found], axis=0)
    return Calibration(
        episodes,
        f"episodes of {robot.name} with seeds from {CALIBRATION.start} on, in simulation, world '{world}', driven by "
        f"the configured behavior policy behind the gate; the manoeuvre starts with the first certified action at "
        f"{spec.moving:g} m/s or more, after a random {robot.period:g} to {LONGEST_S:g} s; episodes without one are "
        "left out",
        tuple(_lines(config, spec, found)),
        tuple(_factors(robot, spec, found)),
        dict(zip(robot.model.certificate.margin_names, room.tolist(), strict=True)),
        covered(episodes),
        covered(episodes, fitted),
        sum(one.unsafe_visits for one in found),
        tuple(found),
    )


# --- one manoeuvre ---------------------------------------------------------------------------------------------------


def _manoeuvre(
    sim: Simulation, gate: Gate, policy: Policy, spec: CalibrationSpec, seed: int, number: int
) -> Manoeuvre | None:
    """One episode's manoeuvre; None if the episode ends before the robot moves under a certified action."""
    robot = sim.robot
    outcome = sim.reset(seed)
    gate.new_episode(number)
    wait = int(np.random.default_rng([seed, 3]).integers(1, round(LONGEST_S / robot.period) + 1))
    while not (outcome.terminated or outcome.truncated):
        inputs = sim.sense()
        candidates = look(sim, gate, inputs, outcome.tick)
        decision = gate.request(candidates.id, policy(candidates), 0)
        assert decision is not None
        fit = decision.verdict.startswith("certified") and decision.index != candidates.plan
        if outcome.tick >= wait and fit and abs(sim.world.truth()[spec.speed]) >= spec.moving:
            return _record(sim, gate, spec, robot.estimate(inputs), decision, outcome.tick)
        outcome = sim.tick(decision.action.astype(np.float64))
    return None


def _record(
    sim: Simulation, gate: Gate, spec: CalibrationSpec, estimate: Estimate, decision: Decision, tick: int
) -> Manoeuvre:
    """Run `decision` and then the plan, and compare the truth with the predictions at `estimate`."""
    robot, model, visits = sim.robot, sim.robot.model, sim.unsafe_visits
    checks = (len(model.certificate.tightening) - 1) // model.dynamics.checks_per_tick * model.dynamics.checks_per_tick
    centre = model.certificate.centre(gate.support.centre)
    start = sim.world.truth()
    measured, commands = [estimate.state], []
    truths, action = [start], decision.action
    for _ in range(checks // model.dynamics.checks_per_tick):
        commands.append(action.astype(np.float64))
        sim.command(commands[-1])
        for _ in range(sim.substeps):
            sim.advance(1)
            truths.append(sim.world.truth())
        tick = sim.finish_tick().tick
        inputs = sim.sense()
        look(sim, gate, inputs, tick)
        action = gate.expire(0).action
        measured.append(robot.estimate(inputs).state)

    lived = np.array(truths[:: sim.substeps])[:, : len(estimate.state)]
    errors = np.abs(np.array(measured) - lived)
    sensed = list(spec.ensemble.measured)
    lived[:, sensed] = np.array(measured)[:, sensed]
    factors = _fit(robot, spec.ensemble, lived, np.array(commands))
    states, end = _predict(robot, estimate.state, decision.action.astype(np.float64), centre, checks)

    def placed(x: Floats) -> Floats:
        return x if spec.placed is None else spec.placed(robot, start, x, sim.world.map)

    predicted = np.array([[robot.truth_margins(placed(x)) for x in members] for members in states])
    h = np.array([robot.truth_margins(truth) for truth in truths])
    per = sim.substeps // model.dynamics.checks_per_tick
    at = h[::per]
    inside = np.array([h[t * per : (t + 1) * per + 1].min(axis=0) for t in range(checks)])
    margins = model.certificate.margins(columns(states), estimate.points, model.certificate.constants)
    seen = np.stack([np.broadcast_to(value, states.shape[:2]) for value in margins], axis=2)
    last = end if spec.ends_in_terminal else checks
    claimed = seen.min(axis=1) - model.certificate.tightening[np.minimum(np.arange(checks + 1), last)]
    lidar = -np.inf
    if (ranges := spec.ranges) is not None:
        i = ranges.constraint
        claimed[claimed[:, i] > ranges.near, i] = -np.inf  # such a range only says "far"
        excess = (seen - predicted)[1 : end + 1, :, i][seen[1 : end + 1, :, i] < ranges.near]
        lidar = float(excess.max(initial=-np.inf))
    return Manoeuvre(
        sim.seed,
        predicted.min(axis=1) - at,
        predicted[:, 0] - at,
        last,
        np.max(np.minimum(at[:-1], at[1:]) - inside, axis=0),
        np.min(inside - np.minimum(claimed[:-1], claimed[1:]), axis=0),
        np.max(errors, axis=0)[list(spec.errors.values())],
        _creep(robot, spec, truths, sim.substeps),
        lidar,
        factors,
        sim.unsafe_visits - visits,
    )


def _predict(robot: Robot, state: Floats, action: Floats, centre: tuple[float, ...], checks: int) -> tuple[Floats, int]:
    """States [checks + 1, J, S] of every member under the action for one tick, then k; first check with all in S_f."""
    dynamics, certificate = robot.model.dynamics, robot.model.certificate
    size = len(dynamics.members)
    x: Columns = tuple(np.full(size, value) for value in state)
    command: Columns = tuple(np.full(size, value) for value in action)
    states, inside, end = [np.stack(x, axis=1)], np.zeros(size, bool), checks
    for t in range(checks):
        if t and t % dynamics.checks_per_tick == 0:
            command = certificate.backup(x, centre, certificate.constants)
        x = advance(dynamics, x, command, columns(dynamics.members), 1)
        states.append(np.stack(np.broadcast_arrays(*x), axis=1))
        if t + 1 >= dynamics.checks_per_tick and not inside.all():
            inside |= certificate.terminal(x, centre, certificate.constants)
            end = t + 1 if inside.all() else checks
    return np.array(states), end


def _creep(robot: Robot, spec: CalibrationSpec, truths: list[Floats], substeps: int) -> float:
    """Metres driven under k after the true speed first fell below the parameter `below`."""
    if spec.creep is None:
        return 0.0
    path = np.array(truths[substeps:])
    slow = np.flatnonzero(np.abs(path[:, spec.speed]) <= _value(robot, spec.creep.below))
    if not len(slow):
        return np.inf
    return float(np.hypot(*np.diff(path[slow[0] :, list(spec.creep.position)], axis=0).T).sum())


# --- its physical parameters -----------------------------------------------------------------------------------------


def _shipped(robot: Robot, ensemble: Ensemble) -> Floats:
    """[P, 2]: for each factor, the range that the robot's mismatches cover."""

    pairs = [[_value(robot, name) if name else 0.0 for name in pair] for pair in ensemble.mismatches]
    return np.array([((1.0 - m) / (1.0 + n), (1.0 + m) / (1.0 - n)) for m, n in pairs])


def _fit(robot: Robot, ensemble: Ensemble, states: Floats, commands: Floats) -> Floats:
    """Factors [P] with which the nominal model best explains states [T + 1, S] under commands [T, A], one a period.

    Each tick is predicted from the state measured before it, so an unstable robot does not amplify errors. The prior
    has mean 1, and half the shipped range as its standard deviation. A factor that the manoeuvre does not show is NaN,
    for example a slew limit that was never reached.
    """
    dynamics = robot.model.dynamics
    scale = np.array([getattr(robot.parameters, name) for name in ensemble.scale]) / SPREAD
    width = np.maximum(np.abs(_shipped(robot, ensemble) - 1.0).max(axis=1), 0.01)
    held, states = columns(commands), states.copy()
    if ensemble.angle is not None:
        states[:, ensemble.angle] = np.unwrap(states[:, ensemble.angle])

    def residuals(factors: Floats) -> Floats:
        member = columns(ensemble.member(dynamics.members[0], factors))
        x = advance(dynamics, columns(states[:-1]), held, member, dynamics.checks_per_tick)
        missed = (np.stack(np.broadcast_arrays(*x), axis=1) - states[1:]) / scale
        return np.concatenate([missed.ravel(), (factors - 1.0) / width])

    found = least_squares(residuals, np.ones(len(ensemble.names)), bounds=(LOWEST, HIGHEST))
    slopes = np.asarray(found.jac, dtype=float)
    error = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    return np.where(error < TOLD * width, found.x, np.nan)


# --- the margins that would have covered them ------------------------------------------------------------------------


def _lines(config: configuration.Config, spec: CalibrationSpec, found: list[Manoeuvre]) -> list[Line]:
    robot = config.robot
    bare = _tightening(config, spec, ())
    model, growth = _tightening(config, spec, spec.model) - bare, _tightening(config, spec, spec.growth) - bare
    calibrated = growth[-1] > 0.0  # the constraints that these parameters tighten
    scales = np.array([_scales(found, kind, model, growth, calibrated) for kind in ("needed", "alone")])

    def line(name: str, needed: float, alone: float | None = None) -> Line:
        return Line(name, _unit(robot, name), _value(robot, name), float(needed), alone)

    lines = []
    for names, scale in ((spec.model, scales[:, 0]), (spec.growth, scales[:, 1])):
        lines += [line(name, *(float(part * _value(robot, name)) for part in scale)) for name in names]
    lines += [line(name, max(one.errors[i] for one in found)) for i, name in enumerate(spec.errors)]
    if spec.creep is not None:
        lines.append(line(spec.creep.margin, max(one.creep for one in found)))
    if spec.ranges is not None:
        name = spec.ranges.margin
        lines.append(line(name, max(_value(robot, name) + max(one.lidar for one in found), 0.0)))
    for i, name in enumerate(robot.model.certificate.margin_names):
        if calibrated[i]:
            lost = max(0.0, max(float(one.between[i]) for one in found))
            lines.append(Line(f"[{name} between checks]", "of h", float(bare[1, i]), lost))
        else:
            both = [
                max(0.0, max(float(getattr(one, kind)[1:, i].max()) for one in found)) for kind in ("needed", "alone")
            ]
            lines.append(Line(f"[{name} tightening]", "of h", float(bare[1:, i].min()), *both))
    return lines


def _factors(robot: Robot, spec: CalibrationSpec, found: list[Manoeuvre]) -> list[Factor]:
    factors, ranges = [], _shipped(robot, spec.ensemble)
    for i, name in enumerate(spec.ensemble.names):
        told = [float(one.factors[i]) for one in found if np.isfinite(one.factors[i])]
        ends = (min(told), max(told)) if told else (np.nan, np.nan)
        factors.append(Factor(name, (float(ranges[i, 0]), float(ranges[i, 1])), ends, len(told)))
    return factors


def _scales(
    found: list[Manoeuvre], kind: str, model: Floats, growth: Floats, calibrated: NDArray[np.bool_]
) -> tuple[float, float]:
    """Least factors on the shipped (model, growth): the first covers the first check, the second all later checks."""
    both = []
    for one in found:
        t = np.minimum(np.arange(1, len(getattr(one, kind))), one.end)
        both.append((getattr(one, kind)[1:, calibrated], model[t][:, calibrated], growth[t][:, calibrated]))
    first = max(0.0, max(float((d[0] / m[0]).max()) for d, m, _ in both)) if model.any() else 0.0
    return first, max(0.0, max(float(((d - first * m) / g).max()) for d, m, g in both))


def _tightening(config: configuration.Config, spec: CalibrationSpec, kept: tuple[str, ...]) -> Floats:
    """Tightening [T + 1, n] with every margin parameter at zero except `kept`."""
    gone = dict.fromkeys({*spec.model, *spec.growth, *spec.others} - set(kept), 0.0)
    parameters = dict(config.raw.get("parameters") or {}) | gone
    return robots.make(config.robot.name, parameters, "calibration").model.certificate.tightening


def _value(robot: Robot, name: str) -> float:
    return float(getattr(robot.parameters, name))


def _unit(robot: Robot, name: str) -> str:
    return str(next(f for f in fields(robot.parameters) if f.name == name).metadata["unit"])


def table(result: Calibration) -> str:
    """The result as a table and notes."""
    rows = [f"{'margin':28}{'unit':>8}{'shipped':>10}{'needed':>10}{'alone':>10}  enough"]
    for line in result.lines:
        alone = "-" if line.alone is None else f"{line.alone:.2g}"
        rows.append(f"{line.name:28}{line.unit:>8}{line.shipped:>10.2g}{line.needed:>10.2g}{alone:>10}  {line.verdict}")
    rows.append(f"\n{'parameter / nominal':22}{'shipped':>18}{'found':>18}{'shown by':>9}{'p':>8}  enough")
    for factor in result.factors:
        shipped, found = (f"{low:.3f} .. {high:.3f}" for low, high in (factor.shipped, factor.found))
        share = f"{covered(factor.told, 2):.4f}"
        if not factor.told:
            found = share = "-"
        rows.append(f"{factor.name:22}{shipped:>18}{found:>18}{factor.told:>9}{share:>8}  {factor.verdict}")
    rows.append("")
    small, n = result.too_small, result.episodes
    rooms = ", ".join(f"{name} {room:.3g}" for name, room in result.room.items())
    texts = [
        "'needed': against the worst member, as in the certificate; 'alone': against the nominal model only",
        "lines in [] are not parameters",
        f"least room left by the whole tightening: {rooms}",
        f"{n} manoeuvres, {result.unsafe_visits} unsafe visits. Population: {result.population}.",
        f"Each line is the largest of {n} independent needs: it covers at least the share p of the population with "
        f"confidence 1 - p^{n}. At {CONFIDENCE:.0%}: p = {result.coverage:.4f}; for the margins of the model "
        f"together p = {result.coverage_pair:.4f}. The p of a physical parameter is for both ends of its range.",
        f"too small: {', '.join(small)}" if small else "no shipped margin or range is too small",
    ]
    return "\n".join([*rows, *(textwrap.fill(text, 80) for text in texts)])
