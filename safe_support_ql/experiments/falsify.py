"""Searches for requests and disturbances that make the certified system unsafe; the truth is PyBullet.

A campaign is a list of shards, each a function of configuration, mismatch, kind of search and seed:
* `random`: episodes of attacks drawn from a fixed distribution, so that its results give a bound;
* `search`: the cross-entropy method over the same attacks, minimising the true margin. It adapts, so it proves no
  bound: it reports the smallest true margin that it found.

A step is counted if the gate executed a certified action that was not the plan. Its consequences are judged as well:
every episode ends with the plan until it is in S_f. Disturbances are the measurement errors that the robot claims to
cover (`Claims.errors`; constant, random, or both) and its own numbers (`Search.numbers`). Mismatches change only the
simulated world, never the monitor's model. All is in lock-step: age and delay of messages are not searched here.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql import config as configuration
from safe_support_ql import robots
from safe_support_ql.experiments.workers import pool as start
from safe_support_ql.experiments.worlds import in_world
from safe_support_ql.recording.bounds import proportion_interval
from safe_support_ql.recording.files import write_atomically
from safe_support_ql.robots.base import Estimate, Floats, Robot, Singles
from safe_support_ql.robots.claims import NOMINAL, Search
from safe_support_ql.robots.model import advance, columns
from safe_support_ql.robots.scan import Scan
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.simulation.simulation import Simulation

BY = "falsify"
SHARD_STEPS = 20_000  # counted steps of a shard: an interruption costs at most some minutes of work
LEAST_NEAR = 0.2  # share of the counted steps that must come near the boundary
SEARCH_STEPS = 20_000  # counted steps of the cross-entropy search of each world
EPISODE_S = 6.0  # s, longest attack
IDLE_TICKS = 15  # an episode ends early if only the plan was certified for this long
NEAR = 2.0  # tightenings: a state closer to the boundary than this is near it
# Edges of the histogram: true margin of a counted step, divided by its largest tightening.
EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
POPULATION, ELITE = 16, 4  # attacks per generation of the cross-entropy method, and how many of them are kept
HASHED = ("safety", "robots", "simulation", "experiments/falsify.py", "experiments/worlds.py")


@dataclass(frozen=True)
class Shard:
    """One piece of a campaign, plain data."""

    raw_config: Mapping[str, Any]
    mismatch: str
    kind: str  # 'random' or 'search'
    seed: int
    steps: int  # counted steps; the last episode is finished
    # Parameters of the monitor only, for example deleted margins.
    monitor: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Stem of its file."""
        return f"{self.mismatch}-{self.kind}-{self.seed:04d}"


def _code() -> str:
    """sha256 over the sources in HASHED."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for part in HASHED:
        path = root / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(source.relative_to(root)).encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


CODE = _code()  # taken at the import, because this process does not run sources that change later


def safety_hash(config: configuration.Config) -> str:
    """sha256 of all that a shard's result depends on: the code of safety and simulation, and the configuration."""
    return hashlib.sha256((config.safety_hash + CODE).encode()).hexdigest()


# --- attacks ---------------------------------------------------------------------------------------------------------


class Space:
    """The space of attacks. An attack is a vector of named numbers, each within [low, high].

    A request is the certified candidate, other than the plan, with the largest weighted sum of: closeness to the edge
    of the certificate (`least`), closeness to the edge of the safe set after `look` checks of the nominal model
    (`toward`), the action itself along `push`, whose sign changes every `dwell` ticks, and a random number (`noise`).
    With probability `idle` a tick requests nothing. `bias` is the constant part of a measurement error, as a share of
    its bound: one for each entry of a channel, but a single one for all ranges of a scan. `jitter` is the random part
    of all errors. The robot may add numbers of its own, see Search in robots/claims.py.
    """

    def __init__(self, robot: Robot) -> None:
        """Lay out the vector of `robot`."""
        self.robot = robot
        self.errors, search = robots.claims_of(robot).errors, robots.claimed(robot, "search", BY)
        sensors = robot.world.sensors
        biases = {name: 1 if sensors[name] == "lidar" else len(bound) for name, bound in self.errors.items()}
        sizes = {"least": 1, "toward": 1, "noise": 1, "look": 1, "dwell": 1, "idle": 1, "jitter": 1}
        sizes |= {"push": len(robot.action_names)} | dict(search.numbers)
        sizes |= {f"bias {name}": n for name, n in biases.items()}
        self._disturbances = {*search.numbers, *(f"bias {name}" for name in biases)}
        ranges = {"least": (0, 3), "toward": (0, 3), "noise": (0, 3), "look": (1, 4), "dwell": (1, 20),
                  "idle": (0, 0.2), "jitter": (0, 1), "push": (-3, 3)}  # fmt: skip
        ends = np.cumsum(list(sizes.values())).tolist()
        self.part = {name: slice(end - n, end) for (name, n), end in zip(sizes.items(), ends, strict=True)}
        bounds = [ranges.get(name, (-1, 1)) for name, n in sizes.items() for _ in range(n)]
        self.low, self.high = np.array(bounds, np.float64).T

    def draw(self, rng: np.random.Generator) -> Floats:
        """An attack from the fixed distribution: one weight or a blend of all; errors at or within their bounds."""
        attack = rng.uniform(self.low, self.high)
        weights = ("least", "toward", "push", "noise")
        only = int(rng.integers(len(weights) + 2))  # one third of all attacks are blends
        if only < len(weights):
            for name in weights:
                if name != weights[only]:
                    attack[self.part[name]] = 0.0
        if rng.random() < 0.5:
            attack[self.part["idle"]] = 0.0
        for name, part in self.part.items():
            if name in self._disturbances:
                at_bound = rng.random() < 0.5
                attack[part] = np.sign(attack[part]) if at_bound else attack[part]
        return attack

    def get(self, attack: Floats, name: str) -> float:
        """The first number called `name` in `attack`."""
        return float(attack[self.part[name]][0])


def ask(
    space: Space, attack: Floats, candidates: CandidateSet, estimate: Estimate, tick: int, rng: np.random.Generator
) -> Singles | None:
    """The request of this tick, None for no request."""
    robot = space.robot
    permitted = np.flatnonzero(candidates.certified & ~candidates.is_plan)
    if not len(permitted) or rng.random() < space.get(attack, "idle"):
        return None
    actions = candidates.actions[permitted]
    turn = -1.0 if int(tick / round(space.get(attack, "dwell"))) % 2 else 1.0
    middle, half = 0.5 * (robot.action_high + robot.action_low), 0.5 * (robot.action_high - robot.action_low)
    score = turn * ((actions - middle) / half) @ attack[space.part["push"]]
    score = score + space.get(attack, "noise") * rng.gumbel(size=len(permitted))
    if space.get(attack, "least"):
        score = score - space.get(attack, "least") * _unit(candidates.margin[permitted])
    if space.get(attack, "toward"):
        ahead = margins_ahead(robot, estimate, actions.astype(np.float64), round(space.get(attack, "look")))
        score = score - space.get(attack, "toward") * _unit(ahead)
    return np.asarray(actions[np.argmax(score)])


def _unit(values: Any) -> Floats:
    """`values` scaled to [0, 1]."""
    width = float(np.ptp(values))
    return np.asarray((values - values.min()) / width if width > 0.0 else np.zeros(len(values)), np.float64)


def margins_ahead(robot: Robot, estimate: Estimate, actions: Floats, checks: int) -> Floats:
    """Smallest true margin [K], in tightenings, after `checks` of the nominal model under each of actions[K, A]."""
    dynamics, certificate = robot.model.dynamics, robot.model.certificate
    start = tuple(np.full(len(actions), value) for value in estimate.state)
    x = advance(dynamics, start, columns(actions), columns(dynamics.members[0]), checks)
    return closeness(robot, np.array(certificate.margins(x, estimate.points, certificate.constants)).T)


def closeness(robot: Robot, margins: Floats) -> Any:
    """Smallest of the true margins[..., n], each divided by its largest tightening.

    A constraint whose tightening does not grow along the rollout is left out: it limits the command, and no state comes
    near it.
    """
    tightening = robot.model.certificate.tightening
    grows = tightening[-1] > tightening[0]
    return (margins[..., grows] / tightening[-1, grows]).min(axis=-1)


# --- episodes --------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Sums over the episodes of a shard."""

    counted_steps: int = 0
    ticks: int = 0
    episodes: int = 0
    near: int = 0
    near_own_period: int = 0  # near, measured by the tightening after one period instead of the largest
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) + 1, np.int64))
    smallest_margin: float = np.inf  # in tightenings
    unsafe_visits: int = 0
    latched: int = 0  # episodes that ended latched: false alarms, because all errors were within bounds
    visits: list[str] = field(default_factory=list)


class Duel:
    """One monitor against attacks in one simulated world."""

    def __init__(self, shard: Shard) -> None:
        """Build world and gate; odd seeds have continuous actions."""
        self.config = configuration.parse(shard.raw_config, "configuration")
        robot = self.robot = self.config.robot
        self.search: Search = robots.claimed(robot, "search", BY)
        self.sim = Simulation(in_world(robot, shard.mismatch, exact=True))  # attacks bring the errors
        monitor = robots.make(robot.name, {**(shard.raw_config.get("parameters") or {}), **shard.monitor})
        self.gate = Gate(monitor, self.config.gate, shard.seed % 2 == 1, shard.seed)
        self.gate.watching = not shard.monitor
        self.gate.opening_states = 1  # attacks begin next to the boundary, where nobody can wait
        self.space = Space(robot)
        # Every kind of search and every world has random streams of its own.
        self.rng = np.random.default_rng([shard.seed, shard.kind == "search", *shard.mismatch.encode()])
        self.met: list[Floats] = []  # true states near the boundary, for later starts
        self.tally = Tally()
        own = robot.model.certificate.tightening[robot.model.dynamics.checks_per_tick]
        self._grows = robot.model.certificate.tightening[-1] > robot.model.certificate.tightening[0]
        self._own = own[self._grows]

    def play(self, attack: Floats) -> float:
        """Play one episode, add it to the tally, and return its smallest true margin in tightenings."""
        sim, gate, tally, certificate = self.sim, self.gate, self.tally, self.robot.model.certificate
        visits = sim.unsafe_visits
        candidates, estimate = self._start(attack)
        tally.episodes += 1
        smallest, idle = np.inf, 0
        attacked = round(EPISODE_S * self.robot.world.control_hz)
        limit = attacked + int(len(certificate.tightening) / self.robot.model.dynamics.checks_per_tick)
        for tick in range(limit):
            over = tick >= attacked or idle >= IDLE_TICKS
            request = None if over else ask(self.space, attack, candidates, estimate, tick, self.rng)
            decision = None if request is None else gate.request(candidates.id, request, self._now)
            decision = decision or gate.expire(self._now)
            made = decision.candidates  # None until the gate is open
            counted = made is not None and decision.verdict.startswith("certified") and not made.is_plan[decision.index]
            outcome = sim.tick(decision.action.astype(np.float64))
            ratio = float(closeness(self.robot, sim.tick_margins))
            smallest = min(smallest, ratio)
            tally.ticks += 1
            if counted:
                tally.counted_steps += 1
                tally.histogram[np.searchsorted(EDGES, ratio, side="right")] += 1
                tally.near += ratio <= NEAR
                tally.near_own_period += bool(np.any(sim.tick_margins[self._grows] <= NEAR * self._own))
                if 0.0 < ratio <= NEAR and self.search.remembers:
                    self._remember(sim.world.truth())
            idle = 0 if counted else idle + 1
            if outcome.visit:
                tally.visits.append(f"{outcome.visit}; attack {np.round(attack, 3).tolist()}")
            if outcome.terminated:
                break
            candidates, estimate = self._sense(attack)
            centre = certificate.centre(gate.support.centre)
            if over and certificate.terminal(tuple(estimate.state), centre, certificate.constants):
                break
        tally.unsafe_visits += sim.unsafe_visits - visits
        tally.smallest_margin = min(tally.smallest_margin, smallest)
        return smallest

    def _remember(self, state: Floats) -> None:
        if len(self.met) < 500:
            self.met.append(state)
        else:
            self.met[int(self.rng.integers(500))] = state

    def _start(self, attack: Floats) -> tuple[CandidateSet, Estimate]:
        """Candidates and estimate at a certified start, which is often near the boundary."""
        while True:
            self.sim.reset(int(self.rng.integers(2**31)))
            if self.search.begin is not None:
                own = {name: attack[self.space.part[name]] for name in self.search.numbers}
                self.search.begin(self.sim.world, self.robot, own, self.rng)
            if self.search.remembers and self.met and self.rng.random() < 0.5:
                self.sim.world.set_state(self.met[int(self.rng.integers(len(self.met)))])
            self.tally.latched += self.gate.state is State.LATCHED
            self.gate.state = State.CLOSED
            self.gate.new_episode(self.tally.episodes)
            self._now = 0
            candidates, estimate = self._sense(attack)
            if candidates.certified.any():
                return candidates, estimate

    def _sense(self, attack: Floats) -> tuple[CandidateSet, Estimate]:
        """Measure with errors, and certify."""
        self._now += int(1e9 / self.robot.world.control_hz)
        inputs = self.sim.sense()
        jitter = self.space.get(attack, "jitter")
        for channel, bound in self.space.errors.items():
            error = attack[self.space.part[f"bias {channel}"]] + jitter * self.rng.uniform(-1.0, 1.0, len(bound))
            off = bound * np.clip(error, -1.0, 1.0)
            if self.robot.world.sensors[channel] == "lidar":
                scan = Scan.of(inputs[channel])
                inputs[channel] = scan.changed(np.maximum(scan.ranges + off, 0.0))
            else:
                inputs[channel] = inputs[channel] + off
        for channel, vector in inputs.items():
            problem = self.gate.receive(channel, vector, self._now, self._now, self._now)
            assert not problem, problem
        candidates = self.gate.begin(self._now, self._now)
        assert candidates is not None, self.gate.cause
        return candidates, self.robot.estimate(inputs)


# --- shards ----------------------------------------------------------------------------------------------------------


def run_shard(shard: Shard) -> dict[str, Any]:
    """Play a shard and return its result as plain data."""
    began = time.monotonic()
    duel = Duel(shard)
    if shard.kind == "random":
        while duel.tally.counted_steps < shard.steps:
            duel.play(duel.space.draw(duel.rng))
    else:
        cross_entropy(duel, shard.steps)
    duel.sim.close()
    tally = duel.tally
    return vars(tally) | {
        "name": shard.name, "mismatch": shard.mismatch, "kind": shard.kind, "seed": shard.seed, "steps": shard.steps,
        "hash": safety_hash(duel.config), "histogram": tally.histogram.tolist(), "visits": tally.visits[:20],
        "verdicts": duel.gate.counters.verdicts, "empty_supports": duel.gate.counters.empty_supports,
        "wall_s": time.monotonic() - began,
    }  # fmt: skip


def cross_entropy(duel: Duel, steps: int) -> None:
    """The cross-entropy method: each generation of attacks is drawn around the best of the previous one."""
    space = duel.space
    attacks = np.array([space.draw(duel.rng) for _ in range(POPULATION)])
    generation = 0
    while duel.tally.counted_steps < steps:
        margins = np.array([duel.play(attack) for attack in attacks])
        best = attacks[np.argsort(margins)[:ELITE]]
        generation += 1
        # A least spread keeps the search going; it restarts from time to time to find other minima.
        if generation % 10 == 0:
            attacks = np.array([space.draw(duel.rng) for _ in range(POPULATION)])
            continue
        spread = best.std(axis=0) + 0.1 * (space.high - space.low) / generation
        drawn = best.mean(axis=0) + spread * duel.rng.standard_normal((POPULATION - 1, len(spread)))
        attacks = np.vstack([best[:1], np.clip(drawn, space.low, space.high)])


def run_and_write(shard: Shard, folder: Path) -> dict[str, Any]:
    """Play a shard and write its result into `folder`, completely or not at all."""
    result = run_shard(shard)
    write_atomically(folder / f"{shard.name}.json", json.dumps(result).encode())
    return result


def plan(raw_config: Mapping[str, Any], mismatches: list[str], steps: int | None) -> list[Shard]:
    """The shards of a campaign: per world, `steps` counted random ones (None: 1 000 000 or 200 000), and the search."""
    shards = []
    for mismatch in mismatches:
        wanted = steps if steps is not None else (1_000_000 if mismatch == NOMINAL else 200_000)
        size = min(wanted, SHARD_STEPS)
        shards += [Shard(raw_config, mismatch, "random", seed, size) for seed in range(-(-wanted // size))]
        # In pairs, because odd seeds have continuous actions.
        shards += [Shard(raw_config, mismatch, "search", seed, min(SEARCH_STEPS, size) // 2) for seed in range(2)]
    return shards


def campaign(
    shards: list[Shard], folder: Path, workers: int = 1, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Results of all `shards`; those in `folder` are reused if code and configuration are still the same."""
    config = configuration.parse(shards[0].raw_config, "configuration")
    robots.claimed(config.robot, "search", BY)  # refuse before the processes start
    folder.mkdir(parents=True, exist_ok=True)
    hash_now = safety_hash(config)
    done, left, void = {}, [], []
    for shard in shards:
        try:
            result = json.loads((folder / f"{shard.name}.json").read_text())
        except (OSError, ValueError):
            left.append(shard)
            continue
        if result.get("hash") == hash_now and result.get("steps") == shard.steps:
            done[shard.name] = result
        else:
            left.append(shard)
            void.append(shard.name)
    if void:
        say(f"{len(void)} shards are void and run again: safety code, configuration or length changed since")
    if done:
        say(f"{len(done)} of {len(shards)} shards are already there")

    def note(result: dict[str, Any]) -> None:
        if result["hash"] != hash_now:
            raise ValueError("the safety code changed while the campaign ran; start it again")
        done[result["name"]] = result
        rate = result["counted_steps"] / max(result["wall_s"], 1e-9)
        say(f"{len(done)}/{len(shards)} {result['name']}: {result['unsafe_visits']} visits, {rate:.0f} steps/s")

    if workers == 1:
        for shard in left:
            note(run_and_write(shard, folder))
    else:
        with start(workers) as pool:
            jobs = [pool.submit(run_and_write, shard, folder) for shard in left]
            try:
                for job in as_completed(jobs):
                    note(job.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [done[shard.name] for shard in shards]


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per world and kind of search: sums over its shards."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        key = (result["mismatch"], result["kind"])
        row = rows.setdefault(
            key,
            {"mismatch": key[0], "kind": key[1], "hash": result["hash"], "shards": 0, "smallest_margin": np.inf,
             "histogram": [0] * (len(EDGES) + 1), "visits": [], "verdicts": {}}
            | dict.fromkeys(SUMS, 0),
        )  # fmt: skip
        row["shards"] += 1
        for name in SUMS:
            row[name] += result[name]
        row["smallest_margin"] = min(row["smallest_margin"], result["smallest_margin"])
        row["histogram"] = [a + b for a, b in zip(row["histogram"], result["histogram"], strict=True)]
        row["visits"] += result["visits"]
        for name, count in result["verdicts"].items():
            row["verdicts"][name] = row["verdicts"].get(name, 0) + count
    for row in rows.values():
        row["near_share"] = row["near"] / max(row["counted_steps"], 1)
        row["near_own_period_share"] = row["near_own_period"] / max(row["counted_steps"], 1)
    return list(rows.values())


SUMS = ("counted_steps", "ticks", "episodes", "near", "near_own_period", "unsafe_visits", "empty_supports", "wall_s")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in 80 columns, and the histogram of the random search."""
    lines = [
        f"{'world':<16}{'search':<8}{'counted':>9}{'visits':>7}{'near':>7}{'least':>7}{'no proof':>10}{'steps/s':>9}"
    ]
    for row in rows:
        no_proof = row["verdicts"].get("no_proof", 0) / max(sum(row["verdicts"].values()), 1)
        lines.append(
            f"{row['mismatch']:<16}{row['kind']:<8}{row['counted_steps']:>9}{row['unsafe_visits']:>7}"
            f"{row['near_share']:>7.1%}{row['smallest_margin']:>7.2f}{no_proof:>10.2%}"
            f"{row['counted_steps'] / max(row['wall_s'], 1e-9):>9.0f}"
        )
    own = sum(row["near_own_period"] for row in rows) / max(sum(row["counted_steps"] for row in rows), 1)
    lines += [
        f"near: share of counted steps whose true margin came within {NEAR:g} tightenings",
        "least: the smallest true margin, in tightenings; below 0 is unsafe",
        "a tightening: the largest along the rollout, for the same limit; measured by the",
        f"tightening after one period instead, {own:.1%} were near",
        "",
        "true margin of the counted steps of the random search, in tightenings:",
    ]
    drawn = np.sum([row["histogram"] for row in rows if row["kind"] == "random"] or [[0] * (len(EDGES) + 1)], axis=0)
    names = ["below 0", *(f"{a:g} to {b:g}" for a, b in zip(EDGES, EDGES[1:], strict=False)), f"{EDGES[-1]:g} and more"]
    for name, count in zip(names, drawn, strict=True):
        share = count / max(drawn.sum(), 1)
        lines.append(f"  {name:<12}{count:>9}{share:>7.1%} {'#' * round(40 * share)}".rstrip())
    return "\n".join(lines)


def bounds(robot: Robot, results: list[dict[str, Any]]) -> str:
    """Bounds from the random search. A trial is an episode: steps are not independent, episodes are.

    If episodes start from states that earlier ones met (Search.remembers), they are not independent, and a trial is a
    shard. An episode ends with its first visit.
    """
    trial = "shards" if robots.claimed(robot, "search", BY).remembers else "episodes"
    lines = [f"random search, one trial for each of its {trial}:"]
    drawn = [result for result in results if result["kind"] == "random"]
    for world in dict.fromkeys(result["mismatch"] for result in drawn):
        rows = [result for result in drawn if result["mismatch"] == world]
        episodes, latched = (sum(row[key] for row in rows) for key in ("episodes", "latched"))
        unsafe = sum(row["unsafe_visits"] if trial == "episodes" else row["unsafe_visits"] > 0 for row in rows)
        trials = episodes if trial == "episodes" else len(rows)
        upper = proportion_interval(min(unsafe, trials), trials, 0.9)[1]  # one-sided 95 %
        lines.append(f"  {world:<16}{unsafe} of {trials} unsafe, below {upper:.1e} at 95 %")
        lines.append(f"  {'':<16}{latched} of {episodes} episodes latched though all errors were within bounds")
    return "\n".join(lines)


def objection(results: list[dict[str, Any]]) -> str:
    """Why the shards show too little; '' if they show enough."""
    near = sum(row["near"] for row in results) / max(sum(row["counted_steps"] for row in results), 1)
    if near >= LEAST_NEAR:
        return ""
    return f"only {near:.1%} of the counted steps came near the boundary, must be at least {LEAST_NEAR:.0%}"
