"""The cart-pole in the adversary's world: how each error that its certificate covers acts on it."""

from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.robots.cart_pole.model import bounds
from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.claims import Adversary, TrueWorld, Truth
from safe_support_ql.robots.model import Floats

STATES = ("position", "angle", "speed", "turn")
STARTS = 0.8  # of the range of starts: at its ends, the start itself would be the state nearest to the boundary


class Pole(TrueWorld):
    """The true cart-pole: the model's nominal member times `truth['factors']`, exactly.

    `truth`: 'factors' (cart mass, pole mass, length, gain), 'e0' [4] on the measured state, 'w' [4] per tick, 'late'
    (s) for every command; and no errors: 'starts' (share of the range), 'between' (true margins between two checks
    count as well).
    """

    def __init__(self, robot: Any, truth: Truth, rng: np.random.Generator) -> None:
        """Start anywhere in the safe set, not too fast; the signs of the errors are drawn once per episode."""
        super().__init__(robot, truth, rng)
        self.x = truth.get("starts", 1.0) * rng.uniform(-1.0, 1.0, 4) * np.array([1.0, 0.2, 0.8, 0.5])
        self.signs = rng.choice([-1.0, 1.0], 8)
        factors = np.array(truth.get("factors", np.ones(4)))
        cart, pole, length, gain = factors
        nominal = robot.model.dynamics.members[0]
        self.member = nominal * np.array([cart, pole, length, pole * length**2, gain, 1.0, 1.0])
        self.before = 0.0
        attacks = int(rng.integers(1, 6))
        self.attacks = 1 if truth.get("old") else attacks  # only a candidate's state may be old: k needs the newest

    def sense(self) -> dict[str, Floats]:
        """The state with its error, and a goal."""
        return {"joint_states": self.x + self.signs[:4] * self.truth.get("e0", 0.0), "goal_pose": np.zeros(1)}

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest scaled margin."""
        return min(self._check(action) for _ in range(checks or 1))

    def _check(self, action: Floats) -> float:
        model, member = self.robot.model, tuple(self.member)
        late = self.truth.get("late", 0.0)
        x = tuple(self.x)
        if late:
            x = model.dynamics.step(x, (self.before,), member, late)
        left = model.dynamics.dt - late
        points = np.linspace(0.0, left, 6)[1:] if self.truth.get("between") else [left]
        met = [np.array(model.dynamics.step(x, tuple(action), member, dt)) for dt in points]
        self.x = met[-1] + self.signs[4:] * self.truth.get("w", 0.0)
        met[-1] = self.x
        self.before = float(action[0])
        return float(min((self.robot.truth_margins(state) / model.certificate.scale).min() for state in met))

    def settled(self, centre: tuple[float, ...]) -> bool:
        """Inside S_f."""
        model = self.robot.model
        return bool(model.certificate.terminal(tuple(self.x), centre, model.certificate.constants))

    def actions(self) -> Floats:
        """Forces over the whole range."""
        return np.linspace(self.robot.action_low[0], self.robot.action_high[0], 81)[:, None]

    def age(self, tick: int) -> int:
        """The plan gets new states."""
        return super().age(tick) if self.attacking(tick) else 0


def adversary(p: Parameters) -> Adversary:
    """The adversary with the errors that the certificate of `p` covers."""
    return Adversary(
        world=Pole,
        monitor=CartPole,
        unit="scaled",
        error_forms=_error_forms(p),
        corners=_corners(p),
        about_one=("factors",),
        no_error=("starts",),
    )


def _box(p: Parameters) -> Floats:
    """Half widths of the certified box of factors [4]."""
    return np.array([p.mass_mismatch, p.mass_mismatch, p.length_mismatch, p.gain_mismatch])


def _error_forms(p: Parameters) -> dict[str, tuple[Truth, ...]]:
    names = ("mass_mismatch, cart", "mass_mismatch, pole", "length_mismatch", "gain_mismatch")
    named: dict[str, list[Truth]] = {
        name: [{"factors": 1 + sign * _box(p) * np.eye(4)[i]} for sign in (1, -1)] for i, name in enumerate(names)
    }
    e0, w = bounds(p)
    for i, state in enumerate(STATES):
        named[f"{state}_error"] = [{"e0": e0 * np.eye(4)[i]}]  # the sign is drawn in every episode
        named[f"{state}_disturbance"] = [{"w": w * np.eye(4)[i]}]
    named["command_delay"] = [{"late": p.command_delay}]
    return {name: tuple({"starts": STARTS, **truth} for truth in truths) for name, truths in named.items()}


def _corners(p: Parameters) -> dict[str, Truth]:
    """All errors at their bounds, by the signs of (cart mass, pole mass, length, gain)."""
    e0, w = bounds(p)
    rest: Truth = {"starts": STARTS, "e0": e0, "w": w, "late": p.command_delay}
    signs = product((1, -1), repeat=4)
    return {" ".join(f"{sign:+d}" for sign in c): {"factors": 1 + np.array(c) * _box(p), **rest} for c in signs}
