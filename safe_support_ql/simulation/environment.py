"""A robot behind its gate as a Gymnasium environment: the same simulation, certificate and gate as behind ROS.

An episode is a function of the number of its arena and of the actions alone: world and gate are made anew for each, so
nothing that was played before can be seen in it. gym.py registers one environment for each robot.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.safety.candidates import Bools, CandidateSet
from safe_support_ql.safety.gate import Gate, GateConfig
from safe_support_ql.simulation.picture import picture
from safe_support_ql.simulation.simulation import Outcome, Simulation

GATES = ("plan", "nearest", "none")  # what runs instead of an uncertified request: the plan, the nearest certified, it


class Environment(gymnasium.Env[Singles, Any]):
    """See the module, and docs/gymnasium.md for spaces and `info`.

    Discrete actions number the n points of the robot's lattice, and n is the plan. Continuous ones are vectors [A] in
    the units of the robot. Observations are what its policies see, [D].
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, robot: Robot, config: GateConfig, arenas: range, continuous: bool = False, gate: str = "plan",
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        """Compile the certificate of `robot` (seconds). Each episode draws its arena from `arenas`.

        Raises ValueError for an unknown `gate` or `render_mode`.
        """
        for name, value, known in (("gate", gate, GATES), ("render_mode", render_mode, (None, "rgb_array"))):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, must be one of {', '.join(map(repr, known))}")
        self.robot, self.continuous, self.gate, self.render_mode = robot, continuous, gate, render_mode
        self.metadata = {**self.metadata, "render_fps": robot.world.control_hz}
        self._config, self._arenas = config, arenas
        self._n = robot.candidates(continuous).size
        self._low, self._high = robot.action_low.astype(np.float32), robot.action_high.astype(np.float32)
        low, high = robot.observation_bounds
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Box(self._low, self._high) if continuous else spaces.Discrete(self._n + 1)
        self._sim: Simulation | None = None
        self._gate = Gate(robot, config, continuous, 0)
        self._candidates: CandidateSet | None = None
        self._observation = np.zeros(len(low), np.float32)
        self._visits = 0  # of the episodes before this one
        self._over = True

    # --- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Begin an episode in an arena drawn with `seed`, or in arena number `options["arena"]`.

        Raises ValueError for another option or value, and if the gate refuses what the simulator sends: the robot's
        settings do not fit its sensors.
        """
        super().reset(seed=seed)
        wanted = dict(options or {})
        arena = wanted.pop("arena", None)
        if wanted:
            raise ValueError(f"unknown option '{next(iter(wanted))}'; known options: arena")
        if arena is None:
            arena = int(self.np_random.integers(self._arenas.start, self._arenas.stop))
        elif not isinstance(arena, int | np.integer) or arena < 0:
            raise ValueError(f"option 'arena' is {arena!r}, must be a whole number from 0 on")
        self.close()
        # Physics keeps contacts, and a gate keeps what it sent, latched and drew: both begin anew.
        self._sim = Simulation(self.robot)
        self._gate = Gate(self.robot, self._config, self.continuous, arena)
        outcome = self._sim.reset(arena)
        self._look(self._sim, outcome)
        if self._candidates is None:
            raise ValueError(f"simulated in lock-step, {self._gate.cause}")
        self._over = False
        return self._observation, {"arena": arena, **self._info(self._sim, outcome)}

    def step(self, action: Any) -> tuple[Singles, SupportsFloat, bool, bool, dict[str, Any]]:
        """One control tick under `action`, or under what the gate lets run instead.

        Raises ValueError for what is no action, before anything is sent, and ResetNeeded after the end of an episode.
        """
        if self._sim is None or self._over:
            raise gymnasium.error.ResetNeeded("the episode is over; call reset()")
        asked = self._asked(action)
        executed, report = self._ungated(asked) if self.gate == "none" else self._gated(asked)
        outcome = self._sim.tick(executed.astype(np.float64))
        self._look(self._sim, outcome)
        self._over = outcome.terminated or outcome.truncated
        replaced = not np.array_equal(executed, asked)
        info = {"executed": executed, "replaced": replaced, **report, **self._info(self._sim, outcome)}
        return self._observation, outcome.reward, outcome.terminated, outcome.truncated, info

    @property
    def unsafe_visits(self) -> int:
        """Of this environment since it was made, by ground truth."""
        return self._visits + (self._sim.unsafe_visits if self._sim is not None else 0)

    def action_masks(self) -> Bools:
        """The discrete actions [n + 1] that the gate would execute now, of those that policies choose from.

        That is the support. While the gate is closed or latched, only the plan is true. Raises ValueError where actions
        are continuous.
        """
        if self.continuous:
            raise ValueError("continuous actions have no mask; info['certified'] is that of info['candidates']")
        mask = np.zeros(self._n + 1, bool)
        candidates = self._candidates
        if candidates is not None and (self.gate == "none" or self._gate.accepting):
            mask[:] = candidates.support[: self._n + 1]
        mask[self._n] |= not mask.any()
        return mask

    def render(self) -> NDArray[np.uint8] | None:
        """The world as a camera sees it [height, width, 3]; None without render_mode="rgb_array"."""
        return picture(self._sim.world) if self._sim is not None and self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Disconnect from PyBullet. `reset` begins anew."""
        if self._sim is not None:
            self._visits += self._sim.unsafe_visits
            self._sim.close()
        self._sim, self._over = None, True

    # --- one tick ----------------------------------------------------------------------------------------------------

    def _look(self, sim: Simulation, outcome: Outcome) -> None:
        """Sense and certify. Where a robot moves as none can, after a fall, what was seen last is shown again."""
        now = (outcome.tick + 1) * int(1e9 / self.robot.world.control_hz)
        for channel, vector in sim.sense().items():
            self._gate.receive(channel, vector, now, now, now)
        self._candidates = self._gate.begin(now, now)
        if self._candidates is not None:
            self._observation = self._candidates.observation

    def _asked(self, action: Any) -> Singles:
        """The action [A] that is asked for. Slot n of the candidates is empty where the plan is a lattice point."""
        if self.continuous:
            vector = np.asarray(action, np.float32)
            if vector.shape != self._low.shape:
                raise ValueError(f"action has shape {vector.shape}, must have {self._low.shape}")
            return vector
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}, must be a whole number from 0 to {self._n}")
        if self._candidates is None:
            return self.robot.silence.astype(np.float32)  # nobody knows the state, and whatever is asked, the plan runs
        slot = self._candidates.plan if action == self._n else int(action)
        return np.asarray(self._candidates.actions[slot])

    def _gated(self, asked: Singles) -> tuple[Singles, dict[str, Any]]:
        """What the gate executes: nothing that is not certified, but the plan."""
        gate, candidates = self._gate, self._candidates
        decision = None
        if candidates is not None:
            wanted = self._nearest(candidates, asked) if self.gate == "nearest" else asked
            decision = gate.request(candidates.id, wanted, 0)
        decision = decision or gate.expire(0)
        index = decision.index if decision.index <= self._n else -1
        return decision.action, {"executed_index": index, "verdict": decision.verdict, "reason": decision.reason}

    def _nearest(self, candidates: CandidateSet, asked: Singles) -> Singles:
        """`asked` where that is certified or the plan, else the nearest certified candidate, else the plan."""
        if not np.isfinite(asked).all():
            return asked  # the gate refuses it
        asked = np.clip(asked, self._low, self._high)
        index, cycle = candidates.find(asked), self._gate.cycle
        known = candidates
        if index < 0 and cycle is not None:
            known, index = self._gate.support.append(candidates, cycle.estimate, cycle.timing, asked), -1
        if known.certified[index] or known.is_plan[index]:
            return asked
        if not candidates.certified.any():
            return np.asarray(candidates.actions[candidates.plan])
        apart = (((candidates.actions - asked) / (self._high - self._low)) ** 2).sum(axis=1)
        return np.asarray(candidates.actions[np.argmin(np.where(candidates.certified, apart, np.inf))])

    def _ungated(self, asked: Singles) -> tuple[Singles, dict[str, Any]]:
        """What was asked for, as the actuator saturates; a NaN becomes silence. The gate only watches."""
        sent = np.where(np.isnan(asked), self.robot.silence, np.clip(asked, self._low, self._high)).astype(np.float32)
        self._gate.support.previous = sent.astype(np.float64)
        self._gate.sent.note(self._gate.support.previous, 0)
        index = -1 if self._candidates is None else self._candidates.find(sent)
        return sent, {"executed_index": index, "verdict": "ungated", "reason": ""}

    def _info(self, sim: Simulation, outcome: Outcome) -> dict[str, Any]:
        """What holds at the newest state, and the counts of ground truth."""
        slots, candidates = self._n + 1, self._candidates
        certified: Bools = np.zeros(slots, bool)
        actions: Floats | Singles = np.zeros((slots, len(self._low)), np.float32)
        if candidates is not None:
            certified, actions = candidates.certified[:slots], candidates.actions[:slots]
        success = outcome.reached if self.robot.must_reach else outcome.truncated and not sim.unsafe_visits
        info = {
            "certified": certified, "candidates": actions, "unsafe_visits": self.unsafe_visits,
            "is_success": success,
        }  # fmt: skip
        return info if self.continuous else {**info, "action_mask": self.action_masks()}
