"""One model for several ticks: what each of them allows, all together may not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safe_support_ql.safety.membership import Membership

W = np.array([0.1, 0.2])


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0.0, 1.0),
)
def test_a_mean_of_the_members_with_errors_within_w_is_always_explained(
    weights: list[float], seed: int, noise: float
) -> None:
    rng, together = np.random.default_rng(seed), Membership(W, 20)
    share = np.array(weights) / sum(weights)
    for _ in range(12):
        members = rng.normal(size=(3, 2))
        wide = rng.uniform(0.0, 0.5, 2)
        now = share @ members + noise * W * rng.uniform(-1.0, 1.0, 2)
        assert together.observe(members - wide, members + wide, now, 1.0) <= 1.0 + 1e-6


def test_what_another_member_explains_in_each_tick_is_not_explained_by_one() -> None:
    """More force and less force both leave room for a push; but not for the same push both ways."""
    together = Membership(W, 20)
    for tick in range(4):
        force = 1.0 if tick % 2 else -1.0
        members = force * np.array([[1.0, 0.0], [0.8, 0.0], [1.2, 0.0]])
        now = np.array([force + 0.15, 0.0])
        assert (members.min(axis=0) <= now).all() and (now <= members.max(axis=0)).all(), (
            "alone, each tick is in bounds"
        )
        left = together.observe(members, members, now, 1.0)
    assert left > 1.4
    together.forget()
    assert together.observe(members, members, now, 1.0) <= 1.0 and len(together) == 1


def test_what_is_no_number_is_not_explained() -> None:
    for bad in (np.nan, np.inf):
        together = Membership(W, 20)
        assert together.observe(np.full((2, 2), bad), np.zeros((2, 2)), np.zeros(2), 1.0) == np.inf
