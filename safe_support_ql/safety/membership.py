"""Does one model explain several ticks together? Sharper than tick by tick, where another model may explain each.

An ensemble that allows a fifth more or less of the force leaves much room in a tick of full force, and a pole that is
not where its encoder says hides in it; but no single model pushes both ways at once. Set-membership identification
(Milanese and Vicino, Automatica 27, 1991), with the models between the members as their weighted means.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.optimize import linprog

from safe_support_ql.robots.model import Floats


class Membership:
    """Ticks, each with the predictions of every member and what was measured. Not thread-safe."""

    def __init__(self, residual: Floats, ticks: int) -> None:
        """`residual`: W [S]; the newest `ticks` are explained together."""
        self._residual = residual
        self._ticks: deque[tuple[Floats, Floats]] = deque(maxlen=ticks)  # each bounds the weights, see `_explain`
        self._explain(np.ones((1, 1)), np.zeros(1))  # the first call loads the solver: not in a tick
        self.forget()

    def __len__(self) -> int:
        return len(self._ticks)

    def forget(self) -> None:
        """Nothing was seen yet."""
        self._ticks.clear()
        self._weights: Floats | None = None  # of the members, which explained the ticks up to now

    def observe(self, low: Floats, high: Floats, now: Floats, enough: float) -> float:
        """The least residual in units of W that some weighted mean of the members leaves in every tick.

        low[J, S], high[J, S] bound the prediction of each member for now[S]. `enough`: a residual of which no smaller
        one need be found.
        """
        left, scale = np.vstack([low.T, -high.T]), np.tile(self._residual, 2)
        self._ticks.append((left / scale[:, None], np.concatenate([now, -now]) / scale))
        left = np.vstack([tick[0] for tick in self._ticks])
        right = np.concatenate([tick[1] for tick in self._ticks])
        if not np.isfinite(left).all() or not np.isfinite(right).all():
            return np.inf
        if self._weights is None:
            self._weights = np.eye(len(low))[0]  # the nominal model
        if (miss := float((left @ self._weights - right).max())) <= enough:
            return miss  # what explained the ticks before explains this one, too
        return self._explain(left, right)

    def _explain(self, left: Floats, right: Floats) -> float:
        """Minimise s over weights: left @ weights <= right + s, weights >= 0 that add up to one."""
        rows, members = left.shape
        found = linprog(
            np.append(np.zeros(members), 1.0),
            A_ub=np.column_stack([left, -np.ones(rows)]),
            b_ub=right,
            A_eq=np.append(np.ones(members), 0.0)[None],
            b_eq=[1.0],
        )
        if found.x is None:
            return np.inf
        self._weights = found.x[:-1]
        return float(found.x[-1])
