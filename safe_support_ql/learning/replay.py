"""The replay: decisions in journal order, and batches of the transitions between consecutive ones.

A row holds a state, its candidates, the executed one, and the reward and end flags that *arrived* with that state. A
transition is a pair of consecutive rows of one episode, so every state is stored only once.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_support_ql.learning.networks import ProblemSpec

Rows = dict[str, npt.NDArray[Any]]


class Batch(NamedTuple):
    """N transitions (s, a, r, s') with the candidates of s'."""

    observation: Tensor  # f32 [N, D]
    action: Tensor  # f32 [N, A], the executed candidate
    reward: Tensor  # f32 [N]
    terminated: Tensor  # bool [N]: do not bootstrap from s'. A truncated episode is False here.
    next_observation: Tensor  # f32 [N, D]
    next_candidates: Tensor  # f32 [N, K, A]
    next_log_weight: Tensor  # f32 [N, K]


class StateBatch(NamedTuple):
    """N states with their candidates, for policy extraction."""

    observation: Tensor  # f32 [N, D]
    candidates: Tensor  # f32 [N, K, A], padding 0
    real: Tensor  # bool [N, K], False for padding
    support: Tensor  # bool [N, K]
    is_plan: Tensor  # bool [N, K]
    log_weight: Tensor  # f32 [N, K]


class Replay:
    """A ring of `capacity` decisions; when full, a new one replaces the oldest and the transition out of it."""

    def __init__(self, spec: ProblemSpec, capacity: int) -> None:
        k, a, d = spec.candidates, spec.action_dim, spec.observation_dim
        self.capacity = capacity
        self.appended = 0  # rows ever appended; the newest is at (appended - 1) % capacity
        self.last_sequence = -1
        self._last_ended = True
        # np.zeros reserves only address space: memory is used as rows arrive.
        self._columns: dict[str, npt.NDArray[Any]] = {
            "observation": np.zeros((capacity, d), np.float32),
            "candidates": np.zeros((capacity, k, a), np.float32),
            "real": np.zeros((capacity, k), np.bool_),
            "support": np.zeros((capacity, k), np.bool_),
            "is_plan": np.zeros((capacity, k), np.bool_),
            "log_weight": np.zeros((capacity, k), np.float32),
            "executed": np.zeros(capacity, np.int64),
            "reward": np.zeros(capacity, np.float32),
            "terminated": np.zeros(capacity, np.bool_),
        }
        self._has_next = np.zeros(capacity, np.bool_)
        self._starts = np.zeros(0, np.int64)  # rows that a transition starts from
        self._states = np.zeros(0, np.int64)  # rows that extraction may use

    def __len__(self) -> int:
        """The number of transitions that can be sampled."""
        return len(self._starts)

    def append(self, rows: Rows) -> None:
        """Append n decisions in journal order.

        Keys: observation [n, D], candidates [n, K, A] (padding NaN, or any number), support, is_plan and log_weight [n,
        K], executed [n] (index into K), reward, terminated, truncated, first and sequence [n]. A row that is `first`,
        that does not carry the next sequence number, or that follows an end has no transition into it. Raises
        ValueError if a column is missing or has a wrong shape, or a row breaks a rule; nothing is then stored.
        """
        count = len(rows["sequence"]) if "sequence" in rows else 0
        stored = self._checked(rows, count)
        if count == 0:
            return
        sequence = rows["sequence"].astype(np.int64)
        ended = rows["terminated"].astype(np.bool_) | rows["truncated"].astype(np.bool_)
        previous = np.concatenate(([self.last_sequence], sequence[:-1]))
        follows_end = np.concatenate(([self._last_ended], ended[:-1]))
        linked = ~rows["first"].astype(np.bool_) & (sequence == previous + 1) & ~follows_end

        kept = slice(max(0, count - self.capacity), count)
        places = ((self.appended + np.arange(count)) % self.capacity)[kept]
        for name, column in self._columns.items():
            column[places] = stored[name][kept]
        self._has_next[(places - 1) % self.capacity] = linked[kept]
        self._has_next[places[-1]] = False  # until its successor arrives
        self.appended += count
        self.last_sequence = int(sequence[-1])
        self._last_ended = bool(ended[-1])

        filled = min(self.appended, self.capacity)
        self._starts = np.flatnonzero(self._has_next[:filled])
        self._states = np.flatnonzero(~self._columns["terminated"][:filled])

    def sample(self, n: int, rng: np.random.Generator, device: torch.device) -> Batch:
        """n transitions, drawn uniformly with replacement. Raises ValueError if there is none yet."""
        if len(self._starts) == 0:
            raise ValueError("replay holds no transition yet: append two consecutive decisions of one episode first")
        at = self._starts[rng.integers(len(self._starts), size=n)]
        then = (at + 1) % self.capacity
        column = self._columns
        action = column["candidates"][at, column["executed"][at]]
        values = (
            column["observation"][at],
            action,
            column["reward"][then],
            column["terminated"][then],
            column["observation"][then],
            column["candidates"][then],
            column["log_weight"][then],
        )
        return Batch(*(torch.from_numpy(value).to(device) for value in values))

    def sample_states(self, n: int, rng: np.random.Generator, device: torch.device) -> StateBatch:
        """n states that are not absorbing, drawn uniformly with replacement. Raises ValueError if there is none yet."""
        if len(self._states) == 0:
            raise ValueError("replay holds no state yet: append decisions first")
        at = self._states[rng.integers(len(self._states), size=n)]
        return StateBatch(*(torch.from_numpy(self._columns[name][at]).to(device) for name in StateBatch._fields))

    def _checked(self, rows: Rows, count: int) -> Rows:
        """The columns to store, after validation of every row: a wrong row would lead to a wrong policy."""
        shapes = {name: column.shape[1:] for name, column in self._columns.items() if name != "real"}
        for name, shape in {**shapes, "truncated": (), "first": (), "sequence": ()}.items():
            if name not in rows:
                raise ValueError(f"replay row lacks '{name}'")
            if rows[name].shape != (count, *shape):
                raise ValueError(f"replay column '{name}' must be {(count, *shape)}, got {rows[name].shape}")

        candidates = rows["candidates"].astype(np.float32)
        support = rows["support"].astype(np.bool_)
        log_weight = rows["log_weight"].astype(np.float32)
        executed = rows["executed"].astype(np.int64)
        terminated = rows["terminated"].astype(np.bool_)
        final = terminated | rows["truncated"].astype(np.bool_)  # nothing need be executed from it
        real: npt.NDArray[np.bool_] = np.asarray(np.isfinite(candidates).all(axis=-1))
        weighted = log_weight > -np.inf
        in_range = (executed >= 0) & (executed < support.shape[1])
        executed = np.where(in_range, executed, 0)
        mass = np.exp(log_weight.astype(np.float64)).sum(axis=-1)
        contract = {
            "observation must be finite": np.isfinite(rows["observation"].astype(np.float32)).all(axis=-1),
            "reward must be finite": np.isfinite(rows["reward"].astype(np.float32)) | rows["first"].astype(np.bool_),
            "every candidate of the support must be finite": (real | ~support).all(axis=-1),
            "log_weight must be -inf outside the support": (support | (log_weight == -np.inf)).all(axis=-1),
            "exp(log_weight) must add up to 1": (np.abs(mass - 1.0) < 1e-3) | (terminated & ~weighted.any(axis=-1)),
            "at most one candidate is the plan": rows["is_plan"].astype(np.bool_).sum(axis=-1) <= 1,
            "executed must point into the support": final | (in_range & support[np.arange(count), executed]),
        }
        for rule, holds in contract.items():
            if not holds.all():
                bad = int(np.flatnonzero(~holds)[0])
                raise ValueError(f"replay row with sequence {int(rows['sequence'][bad])}: {rule}")
        return {
            **rows,
            "candidates": np.where(real[..., None], candidates, np.float32(0.0)),
            "real": real,
            "log_weight": log_weight,
            "executed": executed,
            "reward": np.nan_to_num(rows["reward"].astype(np.float32)),
        }
