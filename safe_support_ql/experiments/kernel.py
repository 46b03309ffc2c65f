"""How much of what is safe the certificate certifies: the gate, asked inside the cart-pole's viability kernel.

The kernel of one ensemble member holds the states from which *some* force signal keeps the safe set S for good, with
the parameters known and fixed; a state-action pair belongs to it if the action's successor does. The robust kernel is
the intersection over the members. Both are computed as OUTER approximations, so that a certified pair outside is a
false accept and a certified share is a lower bound of the true one.

A sweep over grid cells of a sound size cannot do that: in a control period of 20 ms a state moves by less than a cell,
every image touches its own cell, and the approximation hardly shrinks. Instead, the dynamics of each period are
enclosed between two parallel planes, |x+ - A z - B u| <= R, over all states that are still possible then. A trajectory
that stays in S for T periods satisfies those linear inequalities, so the supremum of any n'z over them, a linear
programme, bounds the kernel: it lies in every slab |n'z| <= sup (the model is odd, so the kernel is symmetric). The
slabs are then laid over a 4-D grid whose cells, those that touch all of them, are what states are drawn from.
R comes from dense samples of the model with a tenth to spare: it is measured, not proved.

State z = (x [m], theta [rad], x' [m/s], theta' [rad/s]); force u [N].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from safe_support_ql.config import Config
from safe_support_ql.robots.base import Floats, Model
from safe_support_ql.robots.cart_pole import CartPole
from safe_support_ql.robots.world import JointEffort
from safe_support_ql.safety.candidates import EXTRA_SLOTS
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.ledger import proportion_interval
from safe_support_ql.simulation.world import JointWorld, make_world

Bools = NDArray[np.bool_]
SPARE = 1.1  # on the sampled residual of the linear enclosure
ROUNDS = 3  # of: enclose on what is possible, then bound what is possible with the enclosure


@dataclass(frozen=True)
class Kernel:
    """{z : |normals z| <= offsets}, which holds the kernel of one member; normals[F, 4], offsets[F]."""

    normals: Floats
    offsets: Floats
    box: Floats  # [4], the smallest |z_i| <= box_i around it

    def contains(self, z: Floats) -> Bools:
        """Whether each state z[n, 4] is inside [n]."""
        return np.asarray((np.abs(z @ self.normals.T) <= self.offsets).all(axis=1))

    def touches(self, centres: Floats, half: Floats) -> Bools:
        """Whether no slab separates each cell centre[n, 4] +- half[4] from the kernel [n]: outer, like the kernel."""
        return np.asarray((np.abs(centres @ self.normals.T) <= self.offsets + np.abs(self.normals) @ half).all(axis=1))


class _Programme:
    """The linear programme over z_0..z_T and u_0..u_{T-1}: rows |z_{t+1} - A_t z_t - B_t u_t| <= R_t, box bounds."""

    def __init__(self, model: Model, member: int, bounds: Floats, force: float, unit: Floats, slack: float) -> None:
        """bounds[T + 1, 4] of |z_t|; `unit`[n, 5], samples of the box +-1 of (z, u)."""
        ticks = len(bounds) - 1
        fits = [_enclose(model, member, np.append(bound, force), unit) for bound in bounds[:-1]]
        a: Any = sparse.block_diag([fit[0] for fit in fits])
        b: Any = sparse.block_diag([fit[1][:, None] for fit in fits])
        moves = sparse.eye(4 * ticks, 4 * ticks + 4, k=4) - sparse.hstack([a, sparse.csc_matrix((4 * ticks, 4))])
        residual = slack * np.concatenate([fit[2] for fit in fits])
        limits = np.append(bounds.ravel(), np.full(ticks, force))
        self._size = len(limits)
        self._rows = LinearConstraint(sparse.hstack([moves, -b]).tocsc(), -residual, residual)
        self._box = Bounds(-limits, limits)

    def supremum(self, normal: Floats, tick: int = 0) -> tuple[float, Floats]:
        """(sup of normal'z_tick, the z_0 [4] that attains it). Raises ValueError if the solver gives up."""
        cost = np.zeros(self._size)
        cost[4 * tick : 4 * tick + 4] = -normal
        solved = milp(cost, constraints=self._rows, bounds=self._box)
        if solved.status != 0:
            raise ValueError(f"linear programme of the kernel: {solved.message}")
        return -float(solved.fun) * (1 + 1e-7), np.asarray(solved.x[:4])


def _enclose(model: Model, member: int, size: Floats, unit: Floats) -> tuple[Floats, Floats, Floats]:
    """(A[4, 4], B[4], R[4]) with |x+ - A z - B u| <= R where |(z, u)| <= size [5].

    Weighted least squares whose weights grow with the residual (Lawson's algorithm) come near the smallest R; any
    A, B would be sound.
    """
    inputs = unit * size
    after = np.array(model.step(tuple(inputs[:, :4].T), (inputs[:, 4],), tuple(model.members[member]), model.dt)).T
    best, least = np.zeros((4, 5)), np.full(4, np.inf)
    for i in range(4):
        weight = np.ones(len(inputs))
        for _ in range(6):
            weighted = inputs * weight[:, None]
            row = np.linalg.solve(weighted.T @ inputs, weighted.T @ after[:, i])
            error = np.abs(after[:, i] - inputs @ row)
            if error.max() < least[i]:
                best[i], least[i] = row, error.max()
            weight = weight * error / np.mean(weight * error)
    return best[:, :4], best[:, 4], SPARE * least


def outer_kernel(
    robot: CartPole, member: int, ticks: int, facets: int, samples: int = 10_000, seed: int = 0, slack: float = 1.0
) -> Kernel:
    """An outer approximation of the kernel of `member`: staying in S at the end of `ticks` control periods.

    `slack` 0 leaves R out: then it is no bound, and only tells how much of the kernel is due to R. Raises ValueError
    if the first bounds on the rates are too small.
    """
    p, model = robot.parameters, robot.model
    rng = np.random.default_rng(seed)
    unit = rng.uniform(-1.0, 1.0, (samples, 5))
    unit = np.where(rng.random((samples, 5)) < 0.5, np.sign(unit), unit)  # corners, edges, faces and the inside
    first = np.array([p.position_limit, p.angle_limit, 9.0, 6.0])
    # Nobody stops from these rates inside S: v^2 > 2 a (2 limit).
    z = unit * np.append(first, p.force_limit)
    after = np.array(model.step(tuple(z[:, :4].T), (z[:, 4],), tuple(model.members[member]), model.dt))
    fastest = np.abs(after[2:] - z[:, 2:4].T).max(axis=1) / model.dt
    if (first[2:] ** 2 <= 4.0 * fastest * first[:2]).any():
        raise ValueError(f"rates up to {first[2:]} can be stopped inside S at {fastest}: start with larger ones")
    bounds = np.tile(first, (ticks + 1, 1))
    for _ in range(ROUNDS - 1):
        programme = _Programme(model, member, bounds, p.force_limit, unit, 1.0)
        smaller = [[programme.supremum(np.eye(4)[i], t)[0] for i in (2, 3)] for t in range(ticks + 1)]
        bounds[:, 2:] = np.minimum(bounds[:, 2:], smaller)
    programme = _Programme(model, member, bounds, p.force_limit, unit, slack)

    # Directions: even on the sphere in coordinates in which extreme points, of a few first ones, are spread evenly.
    trial = np.vstack([np.eye(4), rng.normal(size=(20, 4)) / first])
    solved = [programme.supremum(normal) for normal in trial]
    points = np.array([point for _, point in solved])
    root = np.linalg.cholesky(np.linalg.inv(points.T @ points / len(points)))
    normals = np.vstack([trial, rng.normal(size=(max(facets - len(trial), 0), 4)) @ root.T])
    offsets = [value for value, _ in solved] + [programme.supremum(n)[0] for n in normals[len(trial) :]]
    return Kernel(normals, np.array(offsets), np.minimum(bounds[0], offsets[:4]))


def draw_states(kernels: list[Kernel], count: int, cells: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """(states [count, 4] uniform in the intersection, its volume [m rad m/s rad/s]).

    A grid of cells^4 over the bounding box; draws come from cells that touch every kernel, what is outside is redrawn.
    """
    box = np.min([kernel.box for kernel in kernels], axis=0)
    half = box / cells
    axis = -1.0 + (2.0 * np.arange(cells) + 1.0) / cells
    kept = []
    for first in axis:  # a slice at a time, for memory
        centres = box * np.stack(np.meshgrid([first], axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 4)
        for kernel in kernels:
            centres = centres[kernel.touches(centres, half)]
        kept.append(centres)
    grid = np.vstack(kept)
    states, drawn = np.zeros((0, 4)), 0
    while len(states) < count:
        z = grid[rng.integers(len(grid), size=10 * count)] + rng.uniform(-1.0, 1.0, (10 * count, 4)) * half
        drawn += len(z)
        for kernel in kernels:
            z = z[kernel.contains(z)]
        states = np.vstack([states, z])
    volume = len(grid) * float(np.prod(2.0 * half)) * len(states) / drawn
    return states[:count], volume


def pairs_inside(model: Model, kernels: dict[int, Kernel], z: Floats, actions: Floats) -> Bools:
    """[n]: whether the successor of state z[4] under each force actions[n] is in the kernel of every member given."""
    inside = np.ones(len(actions), bool)
    x = tuple(np.full(len(actions), value) for value in z)
    for member, kernel in kernels.items():
        after = model.step(x, (actions,), tuple(model.members[member]), model.dt * model.checks_per_tick)
        inside &= kernel.contains(np.array(after).T)
    return inside


class Truth:
    """PyBullet's cart-pole; `mass` scales both masses, `gain` the force per commanded force."""

    def __init__(self, robot: CartPole, mass: float = 1.0, gain: float = 1.0) -> None:
        """Build the world."""
        p, drive = robot.parameters, robot.world.drive
        assert isinstance(drive, JointEffort)
        changed = CartPole(p)
        if mass != 1.0:
            masses = dict(zip(drive.joints, (mass * p.cart_mass, mass * p.pole_mass), strict=True))
            changed.world = dataclasses.replace(robot.world, drive=dataclasses.replace(drive, link_masses=masses))
        world = make_world(changed)
        assert isinstance(world, JointWorld)
        self._robot, self._world, self._gain = robot, world, gain

    def plan_reaches_rest(self, z: Floats, force: float, centre: float) -> bool:
        """Whether `force` for one period, then the backup policy about `centre`, stays in S and runs into S_f.

        S is judged at every physics sub-step, S_f once a period, within the certificate's horizon.
        """
        model, world = self._robot.model, self._world
        world.set_state(z)
        substeps = self._robot.world.physics_hz // self._robot.world.control_hz
        command = np.array([force])
        for _ in range((len(model.tightening) - 1) // model.checks_per_tick):
            world.command(self._gain * command)
            for _ in range(substeps):
                world.step()
                if (self._robot.truth_margins(world.truth()) < 0.0).any():
                    return False
            truth = tuple(world.truth())
            if model.terminal(truth, centre, model.constants):
                return True
            # As the gate executes it: clipped, and rounded to the precision of the command.
            command = np.array(model.backup(truth, centre, model.constants), np.float32).astype(np.float64)
        return False

    def close(self) -> None:
        """Disconnect."""
        self._world.close()


def _offers(gate: Gate, states: Floats) -> Any:
    """What a gate that has just seen its first state offers there: (actions[n], certified[n], margin[n], centre[n]).

    That is a robot which arrives: no command before, no band. Support.start picks the plan, and its margin decides:
    at `band` or more, candidates need the full band; below, they need the latched threshold, which a first tick sets
    to the plan's own margin less the noise allowance. Lattice slots only: the plan's own slot is no draw of an action.
    """
    model = gate.robot.model
    for number, z in enumerate(states):
        now = (number + 1) * 1_000_000_000
        gate.new_episode(number)
        for channel, vector in (("joint_states", z), ("goal_pose", np.zeros(1))):
            problem = gate.receive(channel, np.array(vector), now, now, now)
            assert not problem, problem
        offered = gate.begin(now, now)
        assert offered is not None, gate.cause
        n = len(offered.actions) - EXTRA_SLOTS
        yield (
            offered.actions[:n, 0].astype(np.float64), offered.certified[:n], offered.margin[:n],
            model.centres[offered.centre[:n], 0],
        )  # fmt: skip


def certified_share(
    config: Config, kernels: dict[int, Kernel], continuous: bool, states: int, cells: int, seed: int
) -> dict[str, Any]:
    """Shares of the state-action pairs of the intersection of `kernels` (member -> kernel) that the gate certifies.

    Pairs: a state uniform in the intersection, each lattice action there (continuous: 21 cells with a random offset,
    so that actions are uniform; discrete: 5 forces) whose successors stay inside. Interval: 95 %, bootstrap over
    states, because the actions of one state are no independent trials. Also counts certified pairs outside: among
    those states, and among those of as many pushed out by up to 30 % that are still in S. Pairs whose present
    state is outside S already are counted apart: the certificate judges what comes, not what is.
    """
    robot, rng = config.robot, np.random.default_rng(seed)
    assert isinstance(robot, CartPole)
    drawn, volume = draw_states(list(kernels.values()), states, cells, rng)
    gate = Gate(robot, config.gate, continuous, seed)
    band = robot.model.band
    rows, outside, supported = [], 0, 0
    for z, (actions, certified, margin, _) in zip(drawn, _offers(gate, drawn), strict=True):
        inside = pairs_inside(robot.model, kernels, z, actions)
        outside += int((certified & ~inside).sum())
        supported += bool(certified.any())
        passed = (certified, margin >= band, margin >= 0.0)
        rows.append([inside.sum(), *((mask & inside).sum() for mask in passed)])
    pushed = drawn * rng.uniform(1.0, 1.3, (states, 1))
    pushed = pushed[~np.all([kernel.contains(pushed) for kernel in kernels.values()], axis=0)]
    in_s = (np.abs(pushed[:, :2]) <= [robot.parameters.position_limit, robot.parameters.angle_limit]).all(axis=1)
    accepted = np.array([int(certified.sum()) for _, certified, _, _ in _offers(gate, pushed)], int)
    outside += int(accepted[in_s].sum())
    counts = np.array(rows, float)
    resampled = counts[rng.integers(states, size=(2000, states))].sum(axis=1)
    shares = counts.sum(axis=0)[1:] / counts[:, 0].sum()
    low, high = np.quantile(resampled[:, 1] / resampled[:, 0], [0.025, 0.975])
    return {
        "volume": volume, "states": states, "pairs": int(counts[:, 0].sum()), "share": float(shares[0]),
        "share_interval95": (float(low), float(high)), "share_at_full_band": float(shares[1]),
        "share_at_zero_margin": float(shares[2]), "states_with_a_certified_action": supported / states,
        "states_outside": int(in_s.sum()), "certified_outside": outside,
        "certified_where_s_is_left_already": int(accepted[~in_s].sum()),
    }  # fmt: skip


def unsafe_on_truth(
    config: Config, kernels: dict[int, Kernel], truth: Truth, pairs: int, cells: int, seed: int
) -> dict[str, Any]:
    """One certified action each of `pairs` states of the kernel, played on `truth`; a false accept does not reach S_f.

    Upper bound of the rate of false accepts: exact (Clopper-Pearson), 95 %, over independent states.
    """
    rng = np.random.default_rng(seed)
    gate = Gate(config.robot, config.gate, True, seed)
    played = unsafe = 0
    while played < pairs:
        drawn, _ = draw_states(list(kernels.values()), pairs, cells, rng)
        for z, (actions, certified, _, centres) in zip(drawn, _offers(gate, drawn), strict=True):
            if played == pairs or not certified.any():
                continue
            pick = rng.choice(np.flatnonzero(certified))
            played += 1
            unsafe += not truth.plan_reaches_rest(z, actions[pick], centres[pick])
    return {"pairs": played, "unsafe": unsafe, "unsafe_rate_upper95": proportion_interval(unsafe, played)[1]}
