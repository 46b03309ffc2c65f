"""Computes a robot's viability kernel, and the share of its safe state-action pairs that the gate certifies.

The kernel of one ensemble member holds the states from which *some* force signal stays in the safe set S for good, with
the parameters known and fixed; a state-action pair belongs to it if the action's successor does. The robust kernel is
the intersection over the members. Both are computed as OUTER approximations: a certified pair outside is a false
accept, and the certified share is a lower bound of the true share.

Sweeping over grid cells cannot do that: in a control period of 20 ms a state moves by less than a cell, every image
touches its own cell, and the approximation hardly shrinks. Instead, the dynamics of a period are enclosed between two
parallel planes, |x+ - A z - B u| <= R, over all states that are still possible. A trajectory that stays in S satisfies
those linear inequalities. The supremum of any n'z over them, a linear programme, therefore bounds the kernel: it lies
in every slab |n'z| <= sup (the model is odd, so the kernel is symmetric). Two ideas make slabs tight:
* n is the programme's own facet behind a point that is drawn evenly from the remaining set: it cuts more than a random
  n does.
* Suppose that n'z comes within a gap of its supremum. By weak duality the trajectory then stays near the optimal one,
  in the direction of the costates. Enclosed there, along the costates only, the model has a far smaller R. Either the
  supremum falls, or the set becomes empty and the supposition is refuted.
States are then drawn from the cells of a grid that touch all slabs.
R comes from dense samples of the model times a factor: it is measured, not proved. A test compares slabs with
trajectories of the model itself that go as far as any found.

State z[2 n]: n positions, then their rates. Input u, one number. A robot with such a model declares a KernelSpec, see
robots/claims.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from safe_support_ql import robots
from safe_support_ql.config import Config
from safe_support_ql.experiments.worlds import driven
from safe_support_ql.recording.bounds import proportion_interval
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.claims import KernelSpec
from safe_support_ql.robots.model import Model
from safe_support_ql.safety.candidates import EXTRA_SLOTS, Bools
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.world import make_world

SPARE = 1.1  # factor on the sampled residual of the linear enclosure
ROUNDS = 3  # of: enclose in a box, then bound the box with the enclosure
FIRST = 300  # slabs of the first kernel, inside which the model is enclosed again
NEAR = 40  # ticks at which the model is enclosed again for each slab; later ticks hardly matter
GAPS = (0.2, 0.05)  # gap, as a share of a slab's supremum, of the supposition that is to be refuted
NEAR_SAMPLES = 2_000  # for each of those enclosures
NEAR_SPARE = 2.0  # factor on their residuals; larger than SPARE, because the samples are few
HIT_AND_RUN = 20  # steps between two points at which slabs are added


@dataclass(frozen=True)
class Kernel:
    """{z : |normals z| <= offsets}, which contains the kernel of one member; normals[F, 2 n], offsets[F]."""

    normals: Floats
    offsets: Floats
    box: Floats  # [2 n], the smallest |z_i| <= box_i around it

    def contains(self, z: Floats) -> Bools:
        """[N]: whether each of the states z[N, 2 n] is inside."""
        return np.asarray((np.abs(z @ self.normals.T) <= self.offsets).all(axis=1))

    def touches(self, centres: Floats, half: Floats) -> Bools:
        """[N]: whether no slab separates the cell centres[N] +- half[2 n] from the kernel; an outer test as well."""
        return np.asarray((np.abs(centres @ self.normals.T) <= self.offsets + np.abs(self.normals) @ half).all(axis=1))


@dataclass(frozen=True)
class _Layers:
    """Enclosures |rows (z_{t+1}, z_t, u_t) - middles| <= widths of the model; rows[N, 4 n + 1], the rest [N]."""

    ticks: NDArray[np.int64]  # the t of each
    rows: Floats
    middles: Floats
    widths: Floats


@dataclass(frozen=True)
class _Optimum:
    """The optimum of a linear programme: value, z[T + 1, 2 n] and u[T] that attain it, and costates[T + 1, 2 n].

    Weak duality: along any trajectory, costates_t'z_t is never above its value at the optimum. If the value of the
    trajectory comes within `gap` of the optimum, it is never more than `gap` below, because the steps before t can
    gain nothing over the optimum.
    """

    value: float
    z: Floats
    u: Floats
    costates: Floats


class _Programme:
    """The linear programme over z_0..z_T and u_0..u_{T-1}, each in its box, in the layers, and z_T in `last`."""

    def __init__(self, layers: _Layers, box: Floats, effort: float, ticks: int, last: Kernel | None) -> None:
        """`box`[2 n] bounds |z_t| and `effort` |u_t| at every tick."""
        self._layers, self._ticks, self._size = layers, ticks, len(box)
        limits = np.append(np.tile(box, ticks + 1), np.full(ticks, effort))
        self._bounds = np.column_stack([-limits, limits])
        self._rows, self._sides = self._lay(layers)
        if last is not None:
            before, after = (sparse.csr_matrix((len(last.normals), n * ticks)) for n in (len(box), 1))
            final: Any = sparse.hstack([before, sparse.csr_matrix(last.normals), after])
            self._rows = sparse.vstack([self._rows, final, -final])
            self._sides = np.concatenate([self._sides, last.offsets, last.offsets])

    def _lay(self, layers: _Layers) -> tuple[Any, Floats]:
        t, count, size = layers.ticks[:, None], len(layers.ticks), self._size
        state = np.arange(size)
        columns = np.hstack([size * (t + 1) + state, size * t + state, size * (self._ticks + 1) + t])
        at = np.repeat(np.arange(count), 2 * size + 1)
        rows = sparse.csr_matrix((layers.rows.ravel(), (at, columns.ravel())), (count, len(self._bounds)))
        sides = np.concatenate([layers.widths + layers.middles, layers.widths - layers.middles])
        return sparse.vstack([rows, -rows]), sides

    def facet(self, z: Floats) -> Floats:
        """The normal [2 n] of the set of all z_0 where the ray through `z` leaves it."""
        ray: Any = sparse.hstack([sparse.eye(self._size, len(self._bounds)), sparse.csr_matrix(-z[:, None])])
        rows = sparse.hstack([self._rows, sparse.csr_matrix((len(self._sides), 1))])
        cost = np.append(np.zeros(len(self._bounds)), -1.0)
        solved = _solve(cost, rows, self._sides, np.vstack([self._bounds, [0.0, np.inf]]), ray)
        return np.asarray(solved.eqlin.marginals)

    def supremum(self, normal: Floats) -> _Optimum:
        """Of normal'z_0."""
        nowhere = _Layers(np.zeros(0, np.int64), np.zeros((0, 2 * self._size + 1)), np.zeros(0), np.zeros(0))
        optimum = self.refute(normal, nowhere, -np.inf)
        assert optimum is not None  # z = 0 is always feasible
        return optimum

    def refute(self, normal: Floats, local: _Layers, least: float) -> _Optimum | None:
        """The same under the additional constraints normal'z_0 >= least and `local`; None if they are infeasible."""
        cost = np.append(-normal, np.zeros(len(self._bounds) - self._size))
        more, widths = self._lay(local)
        rows, sides = sparse.vstack([self._rows, more]), np.concatenate([self._sides, widths])
        if np.isfinite(least):
            rows, sides = sparse.vstack([rows, sparse.csr_matrix(cost)]), np.append(sides, -least)
        solved = _solve(cost, rows, sides, self._bounds)
        if solved is None:
            return None
        costates = np.vstack([normal, np.zeros((self._ticks, self._size))])
        for layers, start in ((self._layers, 0), (local, len(self._sides))):
            count = len(layers.ticks)
            above, below = solved.ineqlin.marginals[start : start + 2 * count].reshape(2, count)
            np.add.at(costates, layers.ticks + 1, (above - below)[:, None] * layers.rows[:, : self._size])
        z, u = np.split(solved.x, [self._size * (self._ticks + 1)])
        return _Optimum(-float(solved.fun) * (1 + 1e-7), z.reshape(-1, self._size), u, costates)


def _solve(cost: Floats, rows: Any, sides: Floats, bounds: Floats, equal: Any = None) -> Any:
    """The solution with its duals; None if there is none. Raises ValueError if the solver gives up."""
    solve: Any = linprog  # its stubs do not know sparse matrices
    right = None if equal is None else np.zeros(equal.shape[0])
    solved = solve(cost, rows.tocsc(), sides, equal, right, bounds, options={"maxiter": 5_000})
    if solved.status not in (0, 2):
        raise ValueError(f"linear programme of the kernel: {solved.message}")
    return solved if solved.status == 0 else None


def _enclose(inputs: Floats, outputs: Floats) -> tuple[Floats, float]:
    """(row, width) with |outputs - inputs row| <= width.

    Any row is sound. Weighted least squares with weights that grow with the residual (Lawson's algorithm) come near the
    smallest width.
    """
    best: Floats = np.zeros(inputs.shape[1])
    least = np.inf
    weight = np.ones(len(inputs))
    for _ in range(5):
        weighted = inputs * weight[:, None]
        row = np.asarray(np.linalg.lstsq(weighted.T @ inputs, weighted.T @ outputs, rcond=None)[0], np.float64)
        error = np.abs(outputs - inputs @ row)
        if error.max() < least:
            best, least = row, float(error.max())
        weight = weight * error / max(float(np.mean(weight * error)), 1e-300) + 1e-9
    return best, SPARE * least


def _after(model: Model, member: int, z: Floats, u: Floats, checks: int) -> Floats:
    """States [N, 2 n] after one step of `checks` checks under the inputs u[N] at z[N, 2 n]."""
    dynamics = model.dynamics
    return np.array(dynamics.step(tuple(z.T), (u,), tuple(dynamics.members[member]), dynamics.dt * checks)).T


@dataclass(frozen=True)
class _Enclosures:
    """Layers of one member's control period, over samples states[N, 2 n], inputs[N] of the possible ones."""

    model: Model
    member: int
    states: Floats
    inputs: Floats

    def _after(self, z: Floats, u: Floats) -> Floats:
        return _after(self.model, self.member, z, u, self.model.dynamics.checks_per_tick)

    def everywhere(self, ticks: int, slack: float) -> _Layers:
        """Enclosures of every coordinate after a period, the same at every tick."""
        samples, after = np.column_stack([self.states, self.inputs]), self._after(self.states, self.inputs)
        size = self.states.shape[1]
        fits = [_enclose(samples, after[:, i]) for i in range(size)]
        rows = np.hstack([np.eye(size), -np.array([row for row, _ in fits])])
        widths = slack * np.array([width for _, width in fits])
        at = np.repeat(np.arange(ticks), size)
        return _Layers(at, np.tile(rows, (ticks, 1)), np.zeros(size * ticks), np.tile(widths, ticks))

    def near(self, optimum: _Optimum, gap: float, rng: np.random.Generator) -> _Layers:
        """Enclosures along the costates, over all trajectories that come within `gap` of `optimum`."""
        n, size = self.states.shape
        ticks: list[int] = []
        rows: list[Floats] = []
        middles: list[float] = []
        widths: list[float] = []
        for t in range(min(NEAR, len(optimum.u))):
            now, then = optimum.costates[t], optimum.costates[t + 1]
            length = np.abs(then).max()
            if length < 1e-6 * np.abs(optimum.costates[0]).max():
                break
            # From the optimum towards the boundary, as far as the gap allows; half of the samples at that end.
            share = np.where(rng.random((2, n)) < 0.5, 1.0, rng.random((2, n)))
            reach = gap / np.maximum((optimum.z[t] - self.states) @ now, 1e-12)
            z = optimum.z[t] + (share[0] * np.minimum(reach, 1.0))[:, None] * (self.states - optimum.z[t])
            best = np.full(n, optimum.u[t])
            reach = gap / np.maximum((self._after(z, self.inputs) - self._after(z, best)) @ then, 1e-12)
            u = best + share[1] * np.minimum(reach, 1.0) * (self.inputs - best)
            after = self._after(z, u)
            spent = (optimum.z[t + 1] - after) @ then
            kept = (spent > -1e-6 * gap) & (spent < gap) & ((optimum.z[t] - z) @ now > -1e-6 * gap)
            if kept.sum() < 100:
                continue
            row, width = _enclose(np.column_stack([z, u, np.ones(n)])[kept], after[kept] @ then / length)
            ticks.append(t)
            rows.append(np.append(then / length, -row[: size + 1]))
            middles.append(row[size + 1])
            widths.append(NEAR_SPARE * width)
        return _Layers(
            np.array(ticks, np.int64), np.reshape(rows, (-1, 2 * size + 1)), np.array(middles), np.array(widths)
        )


def _bound(programme: _Programme, near: _Enclosures, normal: Floats, rng: np.random.Generator) -> float:
    """A bound of normal'z_0: suppose it nearly attains `programme`'s supremum, enclose the model there, refute it."""
    optimum, least = programme.supremum(normal), -np.inf
    for gap in GAPS:
        least = max(least, (1.0 - gap) * optimum.value)
        try:
            better = programme.refute(normal, near.near(optimum, optimum.value - least, rng), least)
        except ValueError:
            break  # the solver cycles, a few times in a thousand; the bound so far remains valid
        if better is None or better.value <= least * (1.0 + 1e-6):
            return least * (1.0 + 1e-6)
        optimum = better
    return optimum.value


def spec_of(robot: Robot) -> KernelSpec:
    """The kernel that `robot` claims. Raises ValueError if it claims none."""
    spec: KernelSpec = robots.claimed(robot, "kernel", "benchmarks/kernel.py")
    return spec


def outer_kernel(
    robot: Robot, member: int, ticks: int, facets: int, samples: int = 10_000, seed: int = 0, slack: float = 1.0
) -> Kernel:
    """An outer approximation of the kernel of `member`, by trajectories of `ticks` control periods.

    `slack` 0 leaves R out: the result is then no bound, but shows how much of the kernel is due to R. Raises
    ValueError if the first bounds on the rates are too small.
    """
    spec, model = spec_of(robot), robot.model
    n = len(spec.limits)
    rng = np.random.default_rng(seed)
    unit = rng.uniform(-1.0, 1.0, (samples, 2 * n + 1))
    unit = np.where(rng.random((samples, 2 * n + 1)) < 0.5, np.sign(unit), unit)  # corners, edges, faces, the inside
    inputs = unit[:, 2 * n] * spec.effort
    box = np.concatenate([spec.limits, spec.rates])
    # These rates are too fast to stop inside S: v^2 > 2 a (2 limit).
    z = unit[:, : 2 * n] * box
    fastest = np.abs(_after(model, member, z, inputs, 1) - z)[:, n:].max(axis=0) / model.dynamics.dt
    if (box[n:] ** 2 <= 4.0 * fastest * box[:n]).any():
        raise ValueError(f"rates up to {box[n:]} can be stopped inside S at {fastest}: start with larger ones")
    for _ in range(ROUNDS):
        layers = _Enclosures(model, member, unit[:, : 2 * n] * box, inputs).everywhere(ticks, 1.0)
        programme = _Programme(layers, box, spec.effort, ticks, None)
        box = np.minimum(box, [programme.supremum(axis).value for axis in np.eye(2 * n)])
    normals = np.vstack([np.eye(2 * n), rng.normal(size=(FIRST, 2 * n)) / box])
    optima = [programme.supremum(normal) for normal in normals]
    kernel = Kernel(normals, np.array([optimum.value for optimum in optima]), box)

    # A trajectory that stays in S for good stays in the kernel, so the model need be enclosed only there: on its
    # boundary (seven of ten samples) and inside, evenly in the coordinates of the extreme points.
    points = np.array([optimum.z[0] for optimum in optima])
    spread = np.linalg.cholesky(points.T @ points / len(points))
    z = rng.normal(size=(samples, 2 * n)) @ spread.T
    z *= np.min(kernel.offsets / np.abs(z @ normals.T), axis=1)[:, None]
    inside = z * np.where(rng.random(samples) < 0.7, 1.0, rng.random(samples))[:, None]
    layers = _Enclosures(model, member, inside, inputs).everywhere(ticks, slack)
    programme = _Programme(layers, box, spec.effort, ticks, kernel)
    ends = np.vstack([points, -points] * 2)
    full = np.repeat([spec.effort, -spec.effort], 2 * len(points))
    near = _Enclosures(model, member, np.vstack([ends, z[:NEAR_SAMPLES]]), np.append(full, inputs[:NEAR_SAMPLES]))
    normals, offsets, at = np.eye(2 * n), kernel.offsets[: 2 * n], np.zeros(2 * n)
    while len(normals) < facets:
        # Add slabs where the volume is: across rays to points drawn evenly from the remaining set (hit and run).
        for _ in range(HIT_AND_RUN):
            along = spread @ rng.normal(size=2 * n)
            here, slope = normals @ at, np.abs(normals @ along)
            side = np.sign(normals @ along) * here
            low, high = float(np.max((-offsets - side) / slope)), float(np.min((offsets - side) / slope))
            at = at + rng.uniform(low, high) * along
        normal = programme.facet(at)
        value = _bound(programme, near, normal, rng) if slack else programme.supremum(normal).value
        normals, offsets = np.vstack([normals, normal]), np.append(offsets, value)
        at = at * min(1.0, 0.999 * value / abs(float(normal @ at)))
    return Kernel(normals, offsets, np.minimum(box, offsets[: 2 * n]))


def draw_states(kernels: list[Kernel], count: int, cells: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """(states [count, 2 n] uniform in the intersection, its volume in the product of their units).

    They are drawn from those cells of a grid of cells^(2 n) over the bounding box that touch every kernel; a draw
    outside a kernel is repeated.
    """
    box = np.min([kernel.box for kernel in kernels], axis=0)
    half, size = box / cells, len(box)
    axis = -1.0 + (2.0 * np.arange(cells) + 1.0) / cells
    kept = []
    for first in axis:  # slice by slice, to save memory
        centres = box * np.stack(np.meshgrid([first], *[axis] * (size - 1), indexing="ij"), axis=-1).reshape(-1, size)
        for kernel in kernels:
            centres = centres[kernel.touches(centres, half)]
        kept.append(centres)
    grid = np.vstack(kept)
    states, drawn = np.zeros((0, size)), 0
    while len(states) < count:
        z = grid[rng.integers(len(grid), size=10 * count)] + rng.uniform(-1.0, 1.0, (10 * count, size)) * half
        drawn += len(z)
        for kernel in kernels:
            z = z[kernel.contains(z)]
        states = np.vstack([states, z])
    volume = len(grid) * float(np.prod(2.0 * half)) * len(states) / drawn
    return states[:count], volume


def pairs_inside(model: Model, kernels: dict[int, Kernel], z: Floats, actions: Floats) -> Bools:
    """[N]: whether the successor of state z[2 n] under each input actions[N] is in the kernel of every member given."""
    inside = np.ones(len(actions), bool)
    states = np.tile(z, (len(actions), 1))
    for member, kernel in kernels.items():
        inside &= kernel.contains(_after(model, member, states, actions, model.dynamics.checks_per_tick))
    return inside


class Truth:
    """The robot in PyBullet; `drive` holds the fields of its world's drive that differ."""

    def __init__(self, robot: Robot, **drive: Any) -> None:
        self._robot, self._world = robot, make_world(driven(robot, **drive))

    def plan_reaches_rest(self, z: Floats, action: float, centre: tuple[float, ...]) -> bool:
        """Whether `action` for one period, then the backup policy about `centre`, stays in S and reaches S_f.

        S is judged at every physics sub-step, S_f once per period, within the certificate's horizon.
        """
        model, certificate, world = self._robot.model, self._robot.model.certificate, self._world
        world.set_state(z)
        substeps = self._robot.world.physics_hz // self._robot.world.control_hz
        command = np.array([action])
        for _ in range((len(certificate.tightening) - 1) // model.dynamics.checks_per_tick):
            world.command(command)
            for _ in range(substeps):
                world.step()
                if (self._robot.truth_margins(world.truth()) < 0.0).any():
                    return False
            truth = tuple(world.truth())
            if certificate.terminal(truth, centre, certificate.constants):
                return True
            # As the gate executes it: clipped, and rounded to the precision of the command.
            backup = certificate.backup(truth, centre, certificate.constants)
            command = np.array(backup, np.float32).astype(np.float64)
        return False

    def close(self) -> None:
        self._world.close()


def _offers(gate: Gate, spec: KernelSpec, states: Floats) -> Any:
    """Lattice candidates of a gate whose first state is each of `states`: actions, certified, margin and centre [n].

    There is no earlier command and no band. Support.start picks the plan, and its margin decides: if it is `band` or
    more, candidates need the full band; if less, they need the threshold of the band, which the first tick sets to the
    plan's own margin less the noise allowance. The plan's own slot is left out, because it is no draw of an action.
    """
    model = gate.robot.model
    for number, z in enumerate(states):
        now = (number + 1) * 1_000_000_000
        gate.new_episode(number)
        for channel, vector in spec.inputs(z).items():
            problem = gate.receive(channel, vector, now, now, now)
            assert not problem, problem
        offered = gate.begin(now, now)
        assert offered is not None, gate.cause
        n = len(offered.actions) - EXTRA_SLOTS
        yield (
            offered.actions[:n, 0].astype(np.float64), offered.certified[:n], offered.margin[:n],
            [model.certificate.centre(int(index)) for index in offered.centre[:n]],
        )  # fmt: skip


def certified_share(
    config: Config, kernels: dict[int, Kernel], continuous: bool, states: int, cells: int, seed: int
) -> dict[str, Any]:
    """Share of the state-action pairs of the intersection of `kernels` (member -> kernel) that the gate certifies.

    Pairs: a state uniform in the intersection, with each lattice action (continuous: cells with a random offset, so
    that actions are uniform; discrete: its few values) whose successors stay inside. Interval: 95 %, bootstrap over
    states, because the actions of one state are not independent. Certified pairs outside are counted as well: at these
    states, and at as many states pushed out by up to 30 %. Pairs whose present state is already outside S are
    counted separately: the certificate judges the future, not the present.
    """
    robot, rng = config.robot, np.random.default_rng(seed)
    spec = spec_of(robot)
    drawn, volume = draw_states(list(kernels.values()), states, cells, rng)
    gate = Gate(robot, config.gate, continuous, seed)
    band = robot.model.certificate.band
    rows, outside, supported = [], 0, 0
    for z, (actions, certified, margin, _) in zip(drawn, _offers(gate, spec, drawn), strict=True):
        inside = pairs_inside(robot.model, kernels, z, actions)
        outside += int((certified & ~inside).sum())
        supported += bool(certified.any())
        passed = (certified, margin >= band, margin >= 0.0)
        rows.append([inside.sum(), *((mask & inside).sum() for mask in passed)])
    pushed = drawn * rng.uniform(1.0, 1.3, (states, 1))
    pushed = pushed[~np.all([kernel.contains(pushed) for kernel in kernels.values()], axis=0)]
    in_s = (np.abs(pushed[:, : len(spec.limits)]) <= spec.limits).all(axis=1)
    accepted = np.array([int(certified.sum()) for _, certified, _, _ in _offers(gate, spec, pushed)], int)
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
    """Play one certified action at each of `pairs` states of the kernel on `truth`; a false accept misses S_f.

    The upper bound of the rate of false accepts is exact (Clopper-Pearson), 95 %, over independent states.
    """
    rng = np.random.default_rng(seed)
    gate = Gate(config.robot, config.gate, True, seed)
    played = unsafe = 0
    while played < pairs:
        drawn, _ = draw_states(list(kernels.values()), pairs, cells, rng)
        for z, (actions, certified, _, centres) in zip(drawn, _offers(gate, spec_of(config.robot), drawn), strict=True):
            if played == pairs or not certified.any():
                continue
            pick = rng.choice(np.flatnonzero(certified))
            played += 1
            unsafe += not truth.plan_reaches_rest(z, actions[pick], centres[pick])
    upper = proportion_interval(unsafe, played, 0.9)[1]  # one-sided 95 %
    return {"pairs": played, "unsafe": unsafe, "unsafe_rate_upper95": upper}
