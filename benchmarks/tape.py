"""A tape: irregular calls on a gate in real time, drawn from a seed, and what each of them returned.

Plays everybody around the gate at once, as the monitor of nodes/safety_monitor.py meets them: sensors that are late,
silent or wrong, a policy that answers late, twice, never or nonsense, a recorder that lags, an operator, a host that
stalls. The world behind the sensors is the robot's own model, so that states stay plausible and certified actions
are common. What comes next depends on the seed and on what the gate returned, on nothing else.

The first section alone knows how a gate is made and called, and what its values are called.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.config import Config
from safe_support_ql.robots.base import Robot, Singles
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.timing import Clock

NS = 1_000_000_000
NONE = ""  # the verdict and the reason of a call that decided nothing
Row = dict[str, Any]

# --- what this revision calls things -------------------------------------------------------------------------------


def make_gate(config: Config, continuous: bool, seed: int, clock: Clock) -> Gate:
    """A gate of the robot of `config`."""
    return Gate(config.robot, config.gate, continuous, seed, clock=clock)


def timing(config: Config) -> tuple[int, int, tuple[float, float], float]:
    """(deadline [ns], time between two looks at it [ns], latency_s, late_s), as the monitor has them in real time."""
    period = config.robot.period
    deadline = min(config.gate.request_deadline_s or period / 2, period)
    look = min(period / 16, 0.02)
    return round(NS * deadline), round(NS * look), (0.0, deadline + look), 0.25 * period + look


def digest(*values: Any) -> int:
    """CRC-32 of the exact values of arrays and numbers, whatever their width."""
    crc = 0
    for value in values:
        array = np.asarray(value)
        crc = zlib.crc32(array.astype(np.float64 if array.dtype.kind == "f" else np.int64).tobytes(), crc)
    return crc


def candidates_digest(candidates: CandidateSet) -> int:
    """Of everything in the set."""
    c = candidates
    return digest(
        c.id, c.stamp_ns, c.episode, c.observation, c.actions, c.certified, c.offered, c.band, c.is_plan, c.margin,
        c.centre,
    )  # fmt: skip


def gate_digest(gate: Gate) -> int:
    """Of what a gate shows of itself, but for the wording of its cause."""
    n = gate.counters
    return digest(
        gate.id, gate.sequence, gate.episode, gate.inputs.instant_ns, gate.recorder.required, bool(gate.cause),
        n.decisions, n.interventions, n.empty_supports, n.refused_inputs, n.refused_requests, n.mismatches,
        [n.verdicts[name] for name in sorted(n.verdicts)], gate.mismatch.level, gate.mismatch.largest,
    )  # fmt: skip


def row(gate: Gate, candidates: CandidateSet | None, decision: Decision | None) -> Row:
    """What one call brought and the gate as it is afterwards; NaN, -1 and '' where it made no candidates or decision.

    Numbers for people and for other machines, and a CRC-32 of all of it that shows any difference in any bit.
    """
    made: Row = {
        "state": gate.state.value, "centre": gate.support.centre, "level": np.float32(gate.mismatch.level),
        "verdict": NONE, "reason": NONE, "action": np.full(len(gate.robot.action_names), np.nan, np.float32),
        "index": -1, "intervention": False, "plan_margin": np.float32(np.nan), "margin": np.float32(np.nan),
        "certified": -1,
    }  # fmt: skip
    parts = [gate_digest(gate)]
    if decision is not None:
        d, candidates = decision, decision.candidates
        made |= {
            "verdict": d.verdict, "reason": d.reason, "action": d.action, "index": d.index,
            "intervention": d.intervention,
        }  # fmt: skip
        parts += [digest(d.sequence, d.id, d.episode, d.stamp_ns, d.action, d.index, d.intervention, bool(d.message))]
        if candidates is not None:
            made["margin"] = candidates.margin[d.index]
    if candidates is not None:
        made |= {"plan_margin": candidates.margin[candidates.plan], "certified": int(candidates.certified.sum())}
        parts += [candidates_digest(candidates)]
    return made | {"digest": digest(parts)}


ASKS = ("offered", "controller", "edge", "plan", "uncertified", "foreign", "outside", "malformed")


def ask(style: str, candidates: CandidateSet, robot: Robot, rng: np.random.Generator) -> Singles:
    """What a policy of that style asks for."""
    c = candidates
    low, high = robot.action_low, robot.action_high
    certified = np.flatnonzero(c.certified & ~c.is_plan)
    if style == "controller":  # no lattice point
        return robot.controller(c.observation[None])[0].astype(np.float32)
    if style == "edge" and len(certified):
        return c.actions[certified[np.argmin(c.margin[certified])]]
    if style == "plan":
        return c.actions[c.plan]
    refused = np.flatnonzero(~c.certified & ~c.is_plan & np.isfinite(c.margin))
    if style == "uncertified" and len(refused):
        return c.actions[rng.choice(refused)]
    if style == "foreign":
        return rng.uniform(low, high).astype(np.float32)
    if style == "outside":
        return (high * rng.uniform(1.1, 3.0)).astype(np.float32)
    if style == "malformed":
        wrong = (np.full(len(low), np.nan), np.full(len(low), np.inf), np.zeros(len(low) + 1), np.zeros(0))
        return wrong[rng.integers(len(wrong))].astype(np.float32)
    return c.actions[rng.choice(np.flatnonzero(c.offered | c.is_plan))]


# --- the worlds ----------------------------------------------------------------------------------------------------


class CartPoleWorld:
    """The cart-pole in steps of the simulator's physics; faulty, it gets four tenths of the force."""

    step_ns = 4_000_000
    every = {"joint_states": 5}  # steps between two samples

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        """At rest, until the first `reset`."""
        self.robot, self.member, self.faulty = robot, 0, False
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """A new start and goal."""
        self.x = tuple(self.robot.initial_state(rng).tolist())
        self.goal = self.robot.draw_goal(rng)

    def advance(self, command: Floats) -> None:
        """One step under `command`."""
        member = self.robot.model.dynamics.members[self.member].tolist()
        member[4] *= 0.4 if self.faulty else 1.0
        self.x = tuple(
            map(float, self.robot.model.dynamics.step(self.x, tuple(command), tuple(member), self.step_ns / NS))
        )

    @property
    def lost(self) -> bool:
        """Whether only a new episode helps."""
        return abs(self.x[1]) > 0.5 or abs(self.x[0]) > 3.0

    def sense(self, channel: str, rng: np.random.Generator) -> Floats:
        """One sample, with half of the errors that the certificate allows for."""
        return np.array(self.x) + 0.5 * robots.claims_of(self.robot).errors[channel] * rng.uniform(-1.0, 1.0, 4)

    def absurd(self, channel: str) -> Floats:
        """A vector that no robot could send."""
        return np.array([40.0, 0.0, 0.0, 0.0])


class DiffDriveWorld:
    """The base between four walls and six posts; faulty, its wheels slip: half the distance, unseen by odometry."""

    step_ns = 5_000_000
    every = {"odom": 10, "scan": 20}
    half = np.array([3.0, 2.5])  # m, half the room
    radius = 0.15  # m, of a post

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        """The room stays, whatever happens in it."""
        self.robot, self.member, self.faulty = robot, 0, False
        self.posts = rng.uniform(-0.8, 0.8, (6, 2)) * self.half
        lidar = robot.world.lidars["scan"]
        self.reach = lidar.range_max
        self.angles = full_circle(np.zeros(lidar.rays), self.reach).angles
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """A new start, with room about it or so near to something that the band matters, and a goal."""
        low, high = (0.19, 0.32) if rng.random() < 0.5 else (0.32, np.inf)  # nearer, nothing opens the gate
        while True:
            x, y, yaw = rng.uniform(-1.0, 1.0, 3) * np.array([*self.half, np.pi])
            self.x: tuple[float, ...] = (float(x), float(y), float(yaw), 0.0, 0.0)
            if low < self.clearance() < high:
                break
        self.odom: tuple[float, ...] = self.x
        self.goal = rng.uniform(-0.8, 0.8, 2) * self.half

    def clearance(self) -> float:
        """Metres between the footprint and what is nearest."""
        at = np.array(self.x[:2])
        posts = np.sqrt(((self.posts - at) ** 2).sum(axis=1)).min() - self.radius
        return float(min(posts, (self.half - np.abs(at)).min()) - self.robot.world.footprint_radius)

    def advance(self, command: Floats) -> None:
        """One step under `command`."""
        model, dt = self.robot.model, self.step_ns / NS
        ground_v, ground_w, response, *drive = model.dynamics.members[self.member].tolist()
        response = 1.0 - (1.0 - response) ** (dt / model.dynamics.dt)  # the model's is that of one of its own steps
        if self.faulty:
            ground_v, ground_w = 0.5 * ground_v, 0.5 * ground_w
        self.odom, self.x = (
            tuple(map(float, model.dynamics.step(x, tuple(command), (*ground, response, *drive), dt)))
            for x, ground in ((self.odom, (1.0, 1.0)), (self.x, (ground_v, ground_w)))
        )

    @property
    def lost(self) -> bool:
        """Whether it stands in something, or drifted far from its odometry."""
        return self.clearance() < -0.1

    def sense(self, channel: str, rng: np.random.Generator) -> Floats:
        """One sample; ranges have noise of a centimetre."""
        if channel == "odom":
            x, y, yaw, v, w = self.odom
            return np.array([x, y, np.sin(0.5 * yaw), np.cos(0.5 * yaw), v, w])
        x, y, yaw = self.x[:3]
        rays = np.stack([np.cos(self.angles + yaw), np.sin(self.angles + yaw)], axis=1)
        with np.errstate(divide="ignore"):
            ranges = ((np.sign(rays) * self.half - np.array([x, y])) / rays).min(axis=1)
        for post in self.posts - np.array([x, y]):
            along = rays @ post
            inside = self.radius**2 - (post @ post - along**2)
            hit = (inside > 0.0) & (along > 0.0)
            ranges[hit] = np.minimum(ranges[hit], along[hit] - np.sqrt(inside[hit]))
        ranges = ranges + 0.01 * np.clip(rng.standard_normal(len(ranges)), -3.0, 3.0)
        return full_circle(np.where(ranges > self.reach, np.inf, np.maximum(ranges, 0.0)), self.reach).vector()

    def absurd(self, channel: str) -> Floats:
        """A vector that no robot could send; of a scan, one that sees nothing."""
        return np.zeros(6) if channel == "odom" else full_circle(np.full(len(self.angles), np.nan), self.reach).vector()


WORLDS: dict[str, Callable[[Robot, np.random.Generator], Any]] = {
    "cart_pole": CartPoleWorld, "diff_drive": DiffDriveWorld,
}  # fmt: skip

# --- the tape ------------------------------------------------------------------------------------------------------

CALLS = (
    "receive", "refuse", "begin", "request", "expire", "latch", "reset", "new_episode", "recorder_alive",
)  # fmt: skip
# What goes wrong for a while, and for how many seconds; between two of them nothing does.
TROUBLES = {
    "policy at the edge": (1.5, 6.0),
    "policy asks for anything": (0.5, 2.0),
    "policy answers late": (0.3, 1.0),
    "policy is silent": (0.2, 0.8),
    "inputs missing": (0.05, 0.6),
    "inputs missing for long": (1.3, 1.8),
    "one input missing": (0.1, 0.5),
    "inputs late": (0.3, 1.5),
    "inputs uneven": (0.5, 2.0),
    "inputs malformed": (0.3, 1.0),
    "stamps stale": (0.2, 0.8),
    "stamps ahead": (0.2, 0.8),
    "clock set": (0.1, 0.5),
    "host stalls": (0.3, 1.5),
    "recorder silent": (1.3, 2.0),
    "recorder behind": (1.3, 2.0),
    "recorder of another run": (0.2, 0.6),
    "button pressed": (0.2, 0.8),
    "robot faulty": (0.5, 1.5),
}


class Tape:
    """See the module. One heap of events, in ns of a steady clock; a stalled host meets them late."""

    def __init__(self, config: Config, continuous: bool, seed: int) -> None:
        """Compiles the gate."""
        self.robot = config.robot
        self.gate = make_gate(config, continuous, seed, Clock.REALTIME)
        self.rng = np.random.default_rng(seed)
        self.world = WORLDS[self.robot.name](self.robot, self.rng)
        self.deadline_ns, self.look_ns, self.latency_s, self.late_s = timing(config)
        self.period_ns = round(NS * self.robot.period)
        self.goal_channel = next(channel.name for channel in self.robot.channels if channel.latched)
        self.sizes = {channel.name: channel.size for channel in self.robot.channels}
        self.rows: list[Row] = []
        self.steady = self.moment = self.world_ns = 5 * NS
        self.ahead = 1_700_000_000 * NS  # of the clock of the stamps
        self.sent: list[tuple[int, Floats]] = []  # when a command reached the drive
        self.trouble, self.silent, self.episode = "", "", 0
        self.open = False
        self.opened = self.begun = self.next_cycle = 0
        self.answered: list[tuple[int, Singles]] = []
        self.last_stamp: dict[str, int] = {}
        self.recorded = 0
        self.queue: list[str] = []
        self.order = count()
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def play(self, calls: int) -> list[Row]:
        """The rows of the first `calls` calls."""
        self.after(0.0, self.start_episode)
        for channel in self.world.every:
            self.after(0.0, self.sample, channel)
        for begins, do in ((0.0, self.look), (3.0, self.heartbeat), (0.5, self.operate), (1.0, self.next_trouble)):
            self.after(begins, do)
        while len(self.rows) < calls:
            self.moment, _, do, given = heapq.heappop(self.events)
            self.steady = max(self.steady, self.moment)
            do(*given)
        return self.rows[:calls]

    def after(self, seconds: float, do: Callable[..., None], *given: Any) -> None:
        """`do` that much after the present event."""
        heapq.heappush(self.events, (self.moment + round(NS * seconds), next(self.order), do, given))

    def between(self, low: float, high: float) -> float:
        """A number drawn between two."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True in that share of calls."""
        return bool(self.rng.random() < share)

    def spend(self, low: float, high: float) -> None:
        """The gate's process was busy for so many seconds."""
        self.steady += round(NS * self.between(low, high))

    def note(
        self, call: str, done: bool, candidates: CandidateSet | None = None, decision: Decision | None = None
    ) -> None:
        """A row; a decision goes to the drive."""
        self.rows.append({"call": call, "done": done} | row(self.gate, candidates, decision))
        if decision is not None:
            self.open = False
            reaches = self.steady + round(NS * self.between(0.0005, 0.004))
            self.sent.append((reaches, decision.action.astype(np.float64)))

    # world and sensors

    def advance_world(self) -> None:
        timeout_ns = round(NS * self.robot.world.drive.timeout)
        while self.world_ns + self.world.step_ns <= self.moment:
            while len(self.sent) > 1 and self.sent[1][0] <= self.world_ns:
                self.sent.pop(0)
            acts = bool(self.sent) and 0 <= self.world_ns - self.sent[0][0] <= timeout_ns
            if not self.world.lost:
                self.world.advance(self.sent[0][1] if acts else np.zeros(len(self.robot.action_names)))
            self.world_ns += self.world.step_ns

    def sample(self, channel: str) -> None:
        self.advance_world()
        vector, stamp, delay = self.world.sense(channel, self.rng), self.moment + self.ahead, self.between(2e-4, 2e-3)
        uneven = 0
        trouble = self.trouble
        if trouble == "inputs late":
            delay = self.between(0.0, 1.2 * self.robot.period)
        elif trouble == "inputs uneven":
            uneven = int(self.rng.integers(-2, 5))
        elif trouble == "inputs malformed" and self.chance(0.4):
            size = self.sizes[channel]
            wrong = (np.full(size, np.nan), np.zeros(size + 1), np.zeros(0), self.world.absurd(channel))
            vector = wrong[self.rng.integers(len(wrong))]
        elif trouble == "stamps stale" and self.chance(0.7):
            stamp = self.last_stamp.get(channel, stamp) if self.chance(0.5) else stamp - round(0.3 * NS)
        elif trouble == "stamps ahead" and self.chance(0.7):
            stamp += round(NS * self.between(0.0, 0.2))
        elif self.chance(0.2):
            uneven = int(self.rng.integers(-1, 2))
        self.last_stamp[channel] = stamp
        missing = trouble.startswith("inputs missing") or (trouble == "one input missing" and channel == self.silent)
        if trouble == "inputs malformed" and self.chance(0.1):
            self.after(delay, self.unreadable, channel)
        elif not missing:
            self.after(delay, self.arrive, channel, vector, stamp, self.episode)
        self.after((self.world.every[channel] + uneven) * self.world.step_ns / NS, self.sample, channel)

    def arrive(self, channel: str, vector: Floats, stamp: int, episode: int) -> None:
        if episode != self.episode:
            return
        problem = self.gate.receive(channel, vector, stamp, self.steady + self.ahead, self.steady)
        self.note("receive", not problem)
        if not problem and self.fresh():
            self.cycle()

    def unreadable(self, channel: str) -> None:
        self.gate.refuse(channel, Cause(f"{channel}: cannot be read"))
        self.note("refuse", True)

    # the monitor

    def fresh(self) -> bool:
        instant_ns = self.gate.inputs.instant_ns
        newer = instant_ns - self.begun >= 0.95 * self.period_ns or 0 < instant_ns < self.begun
        return newer and not self.open and self.steady - self.opened >= self.period_ns // 2

    def look(self) -> None:
        if self.open and self.steady - self.opened >= self.deadline_ns:
            self.expire()
        if self.steady >= self.next_cycle or self.fresh():
            self.cycle()
        if self.trouble == "host stalls" and self.chance(0.03):
            self.steady += round(self.period_ns * self.between(0.2, 3.0))
        self.after(self.look_ns / NS * self.between(0.8, 1.2), self.look)

    def expire(self) -> None:
        self.note("expire", True, None, self.gate.expire(self.steady))

    def cycle(self) -> None:
        self.next_cycle = self.steady + round(1.25 * self.period_ns)
        if self.open:
            self.expire()
        self.begun, self.opened = self.gate.inputs.instant_ns, self.steady
        candidates = self.gate.begin(self.steady + self.ahead, self.steady, self.latency_s, self.late_s)
        self.note("begin", candidates is not None, candidates)
        self.spend(5e-5, 1e-3)
        self.open = candidates is not None
        if candidates is None or (self.gate.state is State.LATCHED and self.chance(0.5)):
            self.expire()
        else:
            self.think(candidates)

    # the policy

    def think(self, candidates: CandidateSet) -> None:
        trouble = self.trouble
        shares = [0.4, 0.25, 0.1, 0.06, 0.03, 0.14, 0.01, 0.01]
        if trouble == "policy asks for anything":
            shares = [0.1, 0.0, 0.0, 0.1, 0.2, 0.3, 0.1, 0.2]
        style = "edge" if trouble == "policy at the edge" else ASKS[self.rng.choice(len(ASKS), p=shares)]
        action = np.array(ask(style, candidates, self.robot, self.rng))
        wait = self.between(0.05, 0.6)
        if trouble == "policy answers late":
            wait = self.between(0.5, 1.6)
        if trouble == "policy is silent" or self.chance(0.02):
            return
        self.after(wait * self.deadline_ns / NS, self.answer, candidates.id, action)
        if self.answered and self.chance(0.03):
            self.after(wait * self.deadline_ns / NS * self.between(0.5, 1.5), self.answer, *self.answered[-1])
        self.answered = [(candidates.id, action)]

    def answer(self, id: int, action: Singles) -> None:
        decision = self.gate.request(id, action, self.steady)
        self.note("request", decision is not None, None, decision)

    # recorder, operator, episodes

    def heartbeat(self) -> None:
        if self.trouble != "recorder behind":
            self.recorded = self.gate.sequence
        if self.trouble != "recorder silent":
            foreign = 1000 if self.trouble == "recorder of another run" else 0
            self.gate.recorder_alive(self.recorded + foreign, self.steady)
            self.note("recorder_alive", True)
        self.after(self.between(0.1, 0.4), self.heartbeat)

    def operate(self) -> None:
        if self.gate.state is State.LATCHED or self.chance(0.02):
            done, _ = self.gate.reset(self.steady + self.ahead, self.steady)
            self.note("reset", done)
        if not self.trouble and (self.world.lost or self.chance(0.06)):
            self.start_episode()
        elif self.chance(0.05):
            self.after(0.0, self.arrive, self.goal_channel, self.world.goal, self.steady + self.ahead, self.episode)
        self.after(self.between(0.05, 0.4), self.operate)

    def press(self) -> None:
        self.gate.latch(Cause("button pressed"))
        self.note("latch", True)

    def start_episode(self) -> None:
        if self.open:
            self.expire()
        self.episode += 1
        self.advance_world()
        self.world.reset(self.rng)
        self.gate.new_episode(self.episode)
        self.note("new_episode", True)
        stamp = self.moment + self.ahead
        self.begun = 0
        self.after(self.between(0.0, 0.1), self.arrive, self.goal_channel, self.world.goal, stamp, self.episode)

    def next_trouble(self) -> None:
        """Trouble and none by turns; each kind once before one comes again."""
        self.world.faulty, self.world.member = False, 0
        if self.trouble:
            self.trouble = ""
            self.after(self.between(0.2, 1.0), self.next_trouble)
            return
        self.queue = self.queue or [list(TROUBLES)[i] for i in self.rng.permutation(len(TROUBLES))]
        self.trouble = self.queue.pop()
        self.world.faulty = self.trouble == "robot faulty"
        if self.trouble == "policy at the edge":  # the certificate is tight for one of its members
            self.world.member = int(self.rng.integers(len(self.robot.model.dynamics.members)))
        if self.trouble == "button pressed":
            self.after(self.between(0.0, 0.2), self.press)
        self.silent = list(self.sizes)[self.rng.integers(len(self.sizes) - 1)]
        if self.trouble == "clock set":
            self.ahead += round(NS * self.between(-0.3, 0.3))
        self.after(self.between(*TROUBLES[self.trouble]), self.next_trouble)
