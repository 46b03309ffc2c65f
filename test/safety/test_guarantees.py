"""Guarantees (a) and (b) of docs/method.md and the hysteresis, for sequences of inputs and requests.

The truth is PyBullet for (a), behind the whole gate in lock-step, in every world that the claim covers and with
measurements wrong by as much as it allows; (b) is about a single model and needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safe_support_ql import config, robots
from safe_support_ql.experiments import worlds
from safe_support_ql.robots.base import Inputs, Robot
from safe_support_ql.robots.scan import Scan, full_circle
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.gate import OPENING_STATES, Decision, Gate, State
from safe_support_ql.simulation.simulation import Simulation

ROBOTS = ("diff_drive", "cart_pole")
WORLDS = {name: worlds.names(config.load_robot(name).robot) for name in ROBOTS}
CLAIMS = {name: robots.claims_of(config.load_robot(name).robot) for name in ROBOTS}
EVENTS = ("least margin", "least margin", "any", "foreign", "none", "NaN request", "NaN input", "silence", "e-stop",
          "reset")  # fmt: skip


@cache
def monitor(name: str) -> Gate:
    """The gate of a robot, made once: the certificate is compiled. It knows nothing of the world that is played."""
    loaded = config.load_robot(name)
    return Gate(loaded.robot, loaded.gate, False, 0)


@cache
def world(name: str, mismatch: str) -> Simulation:
    """A world of a robot, its sensors exact: errors come at their bound instead (see `measured`)."""
    return Simulation(worlds.in_world(config.load_robot(name).robot, mismatch, exact=True))


@pytest.fixture(scope="module", autouse=True)
def leave() -> Iterator[None]:
    """Close the worlds."""
    yield
    for name in ROBOTS:
        for mismatch in WORLDS[name]:
            world(name, mismatch).close()
    world.cache_clear()
    monitor.cache_clear()


def start(sim: Simulation, robot: Robot, seed: int, signs: tuple[float, ...]) -> None:
    """An episode; a base begins beside something, and the last two signs are those of its odometry's drift."""
    sim.reset(seed)
    search = CLAIMS[robot.name].search
    if search and search.begin:
        search.begin(sim.world, robot, {"drift": np.array(signs[2:])}, np.random.default_rng(seed))


def measured(sim: Simulation, robot: Robot, signs: tuple[float, ...]) -> Inputs:
    """What the sensors say, every entry of a state off by its bound to one side, and so all ranges of a scan."""
    inputs = sim.sense()
    for channel, bound in CLAIMS[robot.name].errors.items():
        if robot.world.sensors[channel] == "lidar":
            scan = Scan.of(inputs[channel])
            inputs[channel] = scan.changed(np.maximum(scan.ranges + signs[1] * bound, 0.0))
        else:
            inputs[channel] = inputs[channel] + bound * np.resize(signs, len(bound))
    return inputs


def request(gate: Gate, candidates: CandidateSet, event: str, pick: int) -> Decision | None:
    """What is asked for; 'least margin' is the certified action that comes nearest to what the certificate refuses."""
    certified = np.flatnonzero(candidates.certified)
    index = pick % len(candidates.certified)
    if event == "least margin" and len(certified):
        index = certified[np.argmin(candidates.margin[certified])]
    action = candidates.actions[index].copy()
    if event == "foreign":
        rng = np.random.default_rng(pick)
        action = rng.uniform(gate.robot.action_low, gate.robot.action_high).astype(np.float32)
    if event == "NaN request":
        action[:] = np.nan
    return None if event == "none" else gate.request(candidates.id, action, 0)


def drive(
    sim: Simulation, gate: Gate, seed: int, signs: tuple[float, ...], events: list[tuple[str, int]],
    after: Callable[[Gate, Decision], None],
) -> None:  # fmt: skip
    """Play an episode: the gate opens, then `events` happen, then the plan until S_f; ask after each decision."""
    robot, model, visits, blind = gate.robot, gate.robot.model, sim.unsafe_visits, False
    start(sim, robot, seed, signs)
    gate.state = State.CLOSED  # first, or a latch would outlive the episode
    gate.new_episode(seed)
    events = [("none", 0)] * OPENING_STATES + events
    period, rest = (
        round(1e9 * robot.period),
        [("none", 0)] * (len(model.certificate.tightening) // model.dynamics.checks_per_tick),
    )
    for tick, (event, pick) in enumerate([*events, *rest], 1):
        # Without a state a cart-pole has no passive safe one: that is declared uncoverable, but for a single tick.
        unseen = event in ("NaN input", "silence") and not (blind and robot.name == "cart_pole")
        now = tick * period
        if event == "e-stop":
            gate.latch(Cause("e-stop"))
        inputs = measured(sim, robot, signs)
        for number, (channel, vector) in enumerate(inputs.items()):
            if unseen and number == 0:
                if event == "silence":
                    continue
                vector = vector * np.nan
            gate.receive(channel, vector, now, now, now)
        candidates = gate.begin(now, now)
        if event == "reset":
            gate.reset(now, now)
        blind = candidates is None
        decision = None if candidates is None else request(gate, candidates, event, pick)
        decision = decision or gate.expire(0)
        after(gate, decision)
        outcome = sim.tick(decision.action.astype(np.float64))
        assert sim.unsafe_visits == visits, outcome.visit
        if tick > len(events) and decision.candidates is not None:
            centre = model.certificate.centre(gate.support.centre)
            if model.certificate.terminal(tuple(robot.estimate(inputs).state), centre, model.certificate.constants):
                return


@pytest.mark.parametrize("name", ROBOTS)
@given(
    data=st.data(),
    seed=st.integers(0, 1000),
    signs=st.tuples(*[st.sampled_from((-1.0, 1.0))] * 4),
    events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 99)), min_size=30),
)
@settings(max_examples=25, deadline=None)
def test_no_sequence_of_inputs_and_requests_is_unsafe(
    name: str, data: st.DataObject, seed: int, signs: tuple[float, ...], events: list[tuple[str, int]]
) -> None:
    """Guarantee (a). Any request and any input that is lost or spoilt, in any world that the ensemble stands for, with
    every measurement off by its bound; PyBullet as the truth.
    """
    sim = world(name, data.draw(st.sampled_from(WORLDS[name]), "world"))

    def after(gate: Gate, decision: Decision) -> None:
        assert (decision.action >= gate.robot.action_low - 1e-6).all()
        assert (decision.action <= gate.robot.action_high + 1e-6).all()
        if decision.candidates is not None:
            chosen = decision.candidates
            assert chosen.certified[decision.index] or chosen.is_plan[decision.index]
            np.testing.assert_array_equal(decision.action, chosen.actions[decision.index])

    drive(sim, monitor(name), seed, signs, events, after)


# --- the hysteresis band: a standing base that may turn, in a ring of obstacles -------------------------------------

STEPS = 4  # in-band steps that the budget of this gate allows


@cache
def banded() -> Gate:
    """A gate whose budget is small. Its scans are no robot's that does as told."""
    loaded = config.load_robot("diff_drive", {"parameters.band_budget": STEPS * 0.0005 + 1e-6})
    gate = Gate(loaded.robot, loaded.gate, False, 0)
    gate.watching, gate.opening_states = False, 1
    return gate


def stand(gate: Gate, tick: int, distance: float) -> CandidateSet:
    """The candidates of a base that stands, `distance` [m] from its axle to obstacles all around."""
    now = tick * 100_000_000
    for channel, vector in (
        ("odom", [0, 0, 0, 1, 0, 0]),
        ("scan", full_circle(np.full(180, distance), 6.0).vector()),
        ("goal_pose", [3, 0]),
    ):
        assert not gate.receive(channel, np.array(vector, np.float64), now, now, now)
    candidates = gate.begin(now, now)
    assert candidates is not None
    return candidates


def turn(gate: Gate, candidates: CandidateSet) -> bool:
    """Ask for an action that is not the plan; whether it was executed."""
    other = np.flatnonzero(candidates.certified & ~candidates.is_plan)
    if len(other):
        decision = gate.request(candidates.id, candidates.actions[other[0]].copy(), 0)
        assert decision is not None and decision.reason == "request"
    else:
        gate.expire(0)
    return bool(len(other))


def renew(gate: Gate) -> None:
    """Forget the episode before."""
    gate.new_episode(1)
    gate.state = State.CLOSED


def test_in_the_band_an_action_passes_at_the_latched_threshold_and_not_below() -> None:
    gate = banded()
    renew(gate)
    assert turn(gate, stand(gate, 1, 0.40)) and not gate.support.in_band
    assert turn(gate, stand(gate, 2, 0.36)) and gate.support.in_band
    latched = gate.support.threshold
    assert latched > 0.0
    assert turn(gate, stand(gate, 3, 0.335)), "above the threshold"
    nearer = stand(gate, 4, 0.327)
    assert 0.0 < nearer.margin[nearer.plan] < latched and gate.support.threshold == latched
    assert not turn(gate, nearer), "what ratchets down would pass"
    assert turn(gate, stand(gate, 5, 0.40)) and gate.support.threshold == 0.0, "the band is left"


def test_a_spent_budget_leaves_the_plan_until_the_band_is_left() -> None:
    gate = banded()
    renew(gate)
    turned = [turn(gate, stand(gate, tick, 0.355)) for tick in range(1, STEPS + 4)]
    assert turned == [True] * STEPS + [False] * 3
    assert gate.counters.verdicts["certified_band"] >= STEPS
    candidates = stand(gate, 19, 0.355)
    decision = gate.request(candidates.id, candidates.actions[candidates.plan].copy(), 0)
    assert decision is not None and "budget of the hysteresis band is spent; move it" in decision.message
    assert turn(gate, stand(gate, 20, 0.40)) and turn(gate, stand(gate, 21, 0.355)), "a new budget"


def test_the_surcharge_of_a_mismatch_withholds_what_comes_too_near() -> None:
    gate = banded()
    renew(gate)
    free, near = stand(gate, 1, 0.40), 0.05
    margins = free.margin[free.certified & ~free.is_plan]
    assert len(margins) and (margins < gate.robot.model.certificate.band + near).all()
    gate.support.surcharge = near
    assert not turn(gate, stand(gate, 2, 0.40))
    assert turn(gate, stand(gate, 3, 0.50)), "what keeps the greater distance passes"
    gate.support.surcharge = 0.0
    assert turn(gate, stand(gate, 4, 0.40))


@given(distances=st.lists(st.floats(0.32, 0.37), min_size=2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_in_the_band_the_threshold_never_falls(distances: list[float]) -> None:
    gate = banded()
    renew(gate)
    threshold, steps = 0.0, 0
    for tick, distance in enumerate(distances, 1):
        candidates = stand(gate, tick, distance)
        if not gate.support.in_band:
            threshold, steps = 0.0, 0
        assert gate.support.threshold >= threshold
        threshold = gate.support.threshold
        in_band = candidates.certified & ~candidates.is_plan & candidates.band
        assert (candidates.margin[in_band] >= threshold - 1e-6).all()
        steps += turn(gate, candidates) and gate.support.in_band
        assert steps <= STEPS


# --- (b) -------------------------------------------------------------------------------------------------------------


@cache
def single() -> tuple[Robot, Any, Certifier]:
    """The cart-pole, a model that is its own only member with a tightening that does not grow, and its certificate."""
    robot = config.load_robot("cart_pole").robot
    tightening = np.full_like(robot.model.certificate.tightening, 0.02)
    model = replace(
        robot.model,
        dynamics=replace(robot.model.dynamics, members=robot.model.dynamics.members[:1]),
        certificate=replace(robot.model.certificate, tightening=tightening),
    )
    return robot, model, Certifier(model, len(robot.state_names), len(robot.action_names))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_single_models_plan_certifies_again(seed: int) -> None:
    """Guarantee (b): at the successor of a certified action, the plan behind it is certified, and so on to S_f."""
    robot, model, certificate = single()
    rng = np.random.default_rng(seed)
    state = rng.uniform(-1.0, 1.0, 4) * [0.8, 0.12, 0.6, 0.5]
    actions = rng.uniform(robot.action_low, robot.action_high, (8, 1))
    past, points = np.zeros((1, 0, 1)), np.zeros((0, 2))
    margins, centres = certificate(state, past, (0,), actions, points, len(model.certificate.centres) // 2)
    certified = np.flatnonzero(margins >= 0.0)
    assume(len(certified))
    chosen = rng.choice(certified)
    action, centre = actions[chosen], int(centres[chosen])
    member = tuple(model.dynamics.members[0])
    for _ in range(30):
        x = tuple(state)
        for _ in range(model.dynamics.checks_per_tick):
            x = model.dynamics.step(x, tuple(action), member, model.dynamics.dt)
        state = np.array(x)
        plan = model.certificate.backup(tuple(state), model.certificate.centre(centre), model.certificate.constants)
        action = np.clip(np.array(plan, np.float64), robot.action_low, robot.action_high)
        margin = certificate(state, past, (0,), action[None], points, centre, -np.inf)[0][0]
        assert margin >= -1e-9
