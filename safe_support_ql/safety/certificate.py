"""The certificate as the monitor runs it: the rollout of rollout.py, compiled with Numba and exiting early."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from safe_support_ql.robots.model import Floats, Model


class Certifier:
    """Scaled margins of candidates. Compiled on construction (seconds, once for all of a kind): no decision waits."""

    def __init__(self, model: Model, state_size: int, action_size: int) -> None:
        """Compile and warm up. Raises ValueError if compiled code and model disagree in shape."""
        self.model = model
        self._order = nearest_first(model.certificate.centres)
        self._kernel = _compiled(model, state_size, action_size)
        none, points = np.zeros((1, 0, action_size)), np.ones((1, model.certificate.point_size))
        try:
            self(np.zeros(state_size), none, (0,), np.zeros((1, action_size)), points, 0)
        except numba.core.errors.NumbaError as error:
            why = next((line for line in str(error).splitlines() if "ntyped" in line or "nknown" in line), str(error))
            raise ValueError(
                f"the functions of the model cannot be compiled: {why.strip():.200}; they may call NumPy's "
                "functions, and one of your own if it is decorated with numba.njit"
            ) from error

    def __call__(
        self,
        state: Floats,
        past: Floats,
        delays: tuple[int, ...],
        actions: Floats,
        points: Floats,
        centre: int,
        enough: float = np.inf,
        holds: tuple[int, ...] | None = None,
        least: float = 0.0,
    ) -> tuple[Floats, Any]:
        """Margins [K] and the centre [K] each was reached with; see rollout_margins for the definition.

        `holds`, in checks, stand for those of the model where a command may act longer.

        Centres are tried in the order of their distance from `centre`, the one that the plan has now, because near ones
        are the likely ones; the first that gives `enough` is kept, else the best. A margin below `least` is cut off
        where it was found, so it is an upper bound: whether an action is certified never depends on that.
        """
        model = self.model
        margins = np.full(len(actions), -np.inf)
        best = np.full(len(actions), centre, np.uint8)
        if not len(past) or not np.isfinite(points).all():  # no rollout, or nobody knows what is free: no certificate
            return margins, best
        self._kernel(
            np.ascontiguousarray(state, np.float64),
            np.ascontiguousarray(past, np.float64),
            np.asarray(delays, np.int64),
            np.ascontiguousarray(actions, np.float64),
            np.ascontiguousarray(points, np.float64),
            model.dynamics.members,
            model.certificate.centres,
            self._order[centre],
            np.asarray(holds or model.certificate.holds, np.int64),
            model.certificate.tightening,
            model.certificate.scale,
            enough,
            least,
            margins,
            best,
        )
        return margins, best


def nearest_first(centres: Floats) -> Any:
    """For every one of centres[C, R] the indices of all by their distance from it [C, C]; of two as near, the next."""
    count = len(centres)
    distance = np.linalg.norm(centres[:, None] - centres, axis=2).round(9)  # evenly spaced ones are as near as meant
    behind = np.arange(count) < np.arange(count)[:, None]
    return np.lexsort((behind, distance), axis=1)


def _as_seen(x: Any, seen: Any, h: Any, constants: Any) -> Any:
    """Stands for a margins_from that a model does not have; what it returns is not used."""
    return h


def _compiled(model: Model, state_size: int, action_size: int) -> Callable[..., None]:
    dynamics, certificate = model.dynamics, model.certificate
    return _compile(
        dynamics.step, certificate.backup, certificate.margins, certificate.margins_from, certificate.terminal,
        tuple(float(value) for value in certificate.constants), dynamics.checks_per_tick, dynamics.dt,
        len(certificate.tightening) - 1, state_size, action_size, dynamics.members.shape[1],
        certificate.centres.shape[1],
    )  # fmt: skip


@lru_cache(maxsize=16)  # by all that the compiled code depends on: models that differ in numbers alone share it
def _compile(
    step: Callable[..., Any],
    backup: Callable[..., Any],
    constraints: Callable[..., Any],
    margins_from: Callable[..., Any] | None,
    terminal: Callable[..., Any],
    constants: tuple[float, ...],
    checks_per_tick: int,
    dt: float,
    horizon: int,
    state_size: int,
    action_size: int,
    member_size: int,
    centre_size: int,
) -> Callable[..., None]:
    step, backup, constraints, terminal = (numba.njit(f) for f in (step, backup, constraints, terminal))
    knows, margins_from = margins_from is not None, numba.njit(margins_from or _as_seen)
    as_tuple: Any = to_fixed_tuple  # an intrinsic: what it returns depends on the value of its second argument

    @numba.njit(error_model="numpy")
    def one(  # type: ignore[no-untyped-def]
        state, near, past, action, member, centre, delay, hold, points, tightening, scale, margin, least
    ):
        """`margin`, or what is smaller on the way, cut off below `least`; `near` are the margins at `state`."""
        x = as_tuple(state, state_size)
        asked = as_tuple(action, action_size)
        parameters = as_tuple(member, member_size)
        command = asked
        seen = x
        for t in range(horizon + 1):
            # Most states are too near to where margins are known to be the worst one: then nobody looks closer.
            h = margins_from(x, seen, near, constants)
            matters = not knows
            for i in range(len(h)):
                matters = matters or not (h[i] - tightening[t, i]) / scale[i] >= margin
            if matters:
                h = constraints(x, points, constants)
                seen, near = x, h
                for i in range(len(h)):
                    scaled = (h[i] - tightening[t, i]) / scale[i]
                    if not np.isfinite(scaled):
                        return -np.inf
                    margin = min(margin, scaled)
                if margin < least:
                    return margin
            if t >= delay + hold and terminal(x, centre, constants):
                return margin
            if t < delay:
                command = as_tuple(past[t], action_size)
            elif t < delay + hold:
                command = asked
            elif (t - delay - hold) % checks_per_tick == 0:
                command = backup(x, centre, constants)
            x = step(x, command, parameters, dt)
        return -np.inf

    @numba.njit(error_model="numpy")
    def kernel(  # type: ignore[no-untyped-def]
        state,
        past,
        delays,
        actions,
        points,
        members,
        centres,
        order,
        holds,
        tightening,
        scale,
        enough,
        least,
        margins,
        best,
    ):
        near = constraints(as_tuple(state, state_size), points, constants)
        # Before any rollout: the margins of the state itself, by which the first one is already limited.
        here = np.inf
        for i in range(len(near)):
            scaled = (near[i] - tightening[0, i]) / scale[i]
            here = min(here, scaled) if np.isfinite(scaled) else -np.inf
        fails = 1 % len(members)  # the member that failed last is the likely one to fail next
        for k in range(len(actions)):
            for c in order:
                centre = as_tuple(centres[c], centre_size)
                worst, useful = here, max(least, margins[k])  # a centre is no use that is no better than another
                for i in range(len(members)):
                    j = (fails + i) % len(members)
                    for d in range(len(delays) - 1, -1, -1):
                        for before in past:
                            for hold in holds[::-1]:
                                if worst >= useful:
                                    worst = one(
                                        state, near, before, actions[k], members[j], centre, delays[d], hold,
                                        points, tightening, scale, worst, useful,
                                    )  # fmt: skip
                    if worst < useful:
                        fails = j
                        break
                if worst > margins[k]:
                    margins[k], best[k] = worst, c
                if worst >= enough:
                    break

    return kernel
