"""Plays episodes in real time on a simulated clock: sensors with a time of their own before the gate, without ROS.

Cycles begin as in nodes/safety_monitor.py, requests are answered at once, and a command acts when it is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from safe_support_ql.experiments.episodes import EpisodeResult, Policy
from safe_support_ql.robots.base import LATE, Floats
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.timing import Clock
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Streams

# (channel, vector, seconds since the start) -> what is sent instead; None: it is lost
Fault = Callable[[str, Floats, float], Floats | None]

NS = 1_000_000_000
EARLY = 0.95  # of a period: a state so much newer begins a cycle
AFTERWARDS_S = 2.0  # for the plan after a latch


@dataclass(frozen=True)
class StreamedEpisode(EpisodeResult):
    """One finished episode, or one that ended AFTERWARDS_S after a latch."""

    latched: str  # why the gate latched; '' if it did not
    latched_after: int  # control ticks until then
    refused: int  # inputs
    closed: int  # decisions of a gate that has certified nothing yet
    blind: int  # decisions of an open gate without a state


class Monitor:
    """The real-time half of nodes/safety_monitor.py, without its topics. Times are nanoseconds on one clock."""

    def __init__(self, gate: Gate, policy: Policy | None) -> None:
        """Without a policy (None) nothing is requested, and the plan runs."""
        self.gate, self._policy = gate, policy
        period = gate.robot.period
        look_s = min(period / 16, 0.02)
        lockstep = gate.clock is Clock.LOCKSTEP
        self._latency_s = None if lockstep else (0.0, (gate.config.request_deadline_s or period / 2) + look_s)
        self._late_s = 0.0 if lockstep else (LATE - 1.0) * period + look_s
        self._period_ns = round(NS * period)

    def new_episode(self, episode: int, now: int) -> None:
        """The robot was put somewhere else at `now`."""
        self.gate.new_episode(episode)
        self._begun = self._opened = 0
        self._next_cycle = now + round(LATE * self._period_ns)

    def receive(self, channel: str, vector: Floats, stamp: int, now: int) -> Decision | None:
        """Take a message; the decision, where it completes the state of a new cycle."""
        problem = self.gate.receive(channel, vector, stamp, now, now)
        return self._cycle(now) if not problem and self._fresh(now) else None

    def look(self, now: int) -> Decision | None:
        """What the timer does: a cycle without a new state, when it is due."""
        return self._cycle(now) if now >= self._next_cycle or self._fresh(now) else None

    def _fresh(self, now: int) -> bool:
        newer = self.gate.inputs.instant_ns - self._begun >= EARLY * self._period_ns
        return newer and now - self._opened >= self._period_ns // 2

    def _cycle(self, now: int) -> Decision:
        gate = self.gate
        self._next_cycle = now + round(LATE * self._period_ns)
        self._begun, self._opened = gate.inputs.instant_ns, now
        candidates = gate.begin(now, now, self._latency_s, self._late_s)
        if candidates is None or self._policy is None or gate.state is State.LATCHED:
            return gate.expire(now)
        return gate.request(candidates.id, self._policy(candidates), now) or gate.expire(now)


def play(
    sim: Simulation, gate: Gate, policy: Policy | None, seed: int, episode: int, arena: Arena | None = None,
    fault: Fault | None = None,
) -> StreamedEpisode:  # fmt: skip
    """Play one episode; a latch of an earlier one is released. `episode` numbers go up, as the clock of the gate does.

    `arena` replaces that of the seed; `fault` changes every message before the gate sees it.
    """
    counters, before, visits, dt = gate.counters, asdict(gate.counters), sim.unsafe_visits, sim.world.dt
    waits = sim.waits
    start = round(NS * (episode + 1) * (sim.robot.world.episode_s + 1.0))
    if gate.state is State.LATCHED:
        gate.state = State.CLOSED
    monitor, streams = Monitor(gate, policy), Streams(sim)
    outcome, steps, latched, closed, blind = sim.reset(seed, arena), 0, "", 0, 0
    monitor.new_episode(episode, start)
    latched_at, latched_after, messages = np.inf, 0, streams.start()
    measured = {message.channel: message.vector for message in messages}
    sim.measured = dict(measured)
    while not (outcome.terminated or outcome.truncated or steps * dt - latched_at > AFTERWARDS_S):
        now = start + round(NS * steps * dt)
        made = []
        for channel, vector, stamp_s in messages:
            sent = vector if fault is None else fault(channel, vector, stamp_s)
            if sent is not None:
                made.append(monitor.receive(channel, sent, start + round(NS * stamp_s), now))
        for decision in (*made, monitor.look(now)):
            if decision is not None:
                closed += decision.reason == "closed"
                blind += decision.reason == "input_missing"
                sim.command(decision.action.astype(np.float64))
        if gate.state is State.LATCHED and not latched:
            latched, latched_at, latched_after = str(gate.cause), steps * dt, 1 + steps // sim.substeps
        sim.advance(1)
        steps += 1
        messages = streams.step()
        measured |= {message.channel: message.vector for message in messages}
        if steps % sim.substeps == 0:
            outcome = sim.finish_tick(measured)
    believed = outcome.terminated and sim.unsafe_visits == visits
    return StreamedEpisode(
        seed, outcome.tick, outcome.reached, believed, outcome.episode_return, outcome.min_margin,
        sim.unsafe_visits - visits, sim.waits - waits, counters.interventions - before["interventions"],
        counters.empty_supports - before["empty_supports"],
        {name: count - before["verdicts"][name] for name, count in counters.verdicts.items()},
        latched, latched_after, counters.refused_inputs - before["refused_inputs"], closed, blind,
    )  # fmt: skip
