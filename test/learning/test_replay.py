import numpy as np
import pytest
import torch

from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Replay

CPU = torch.device("cpu")
SPEC = ProblemSpec(1, 1, 3, np.ones(1), -np.ones(1), np.ones(1))


def make_rows(sequence, first=(), terminated=(), truncated=()) -> dict[str, np.ndarray]:
    """Decisions whose observation and arriving reward are their sequence number; candidate 2 is padding."""
    n = len(sequence)
    number = np.array(sequence, np.int64)
    candidates = np.tile(np.array([[-1.0], [1.0], [np.nan]], np.float32), (n, 1, 1))
    support = np.tile([True, True, False], (n, 1))
    return {
        "observation": number[:, None].astype(np.float32),
        "candidates": candidates,
        "support": support,
        "is_plan": np.tile([True, False, False], (n, 1)),
        "log_weight": np.tile(np.log(np.array([0.5, 0.5, 1e-300])), (n, 1)).astype(np.float32)
        + np.array([0, 0, -np.inf], np.float32),
        "executed": np.ones(n, np.int64),
        "reward": number.astype(np.float32),
        "terminated": np.isin(number, terminated),
        "truncated": np.isin(number, truncated),
        "first": np.isin(number, first),
        "sequence": number,
    }


def transitions(replay: Replay) -> set[tuple[float, float, bool]]:
    """(observation, next observation, terminated) of every transition the replay can give."""
    batch = replay.sample(1000, np.random.default_rng(0), CPU)
    columns = (batch.observation[:, 0], batch.next_observation[:, 0], batch.terminated)
    return set(zip(*(column.tolist() for column in columns), strict=True))


def test_transition_takes_reward_and_end_from_the_next_row():
    replay = Replay(SPEC, 10)
    replay.append(make_rows([0, 1, 2], first=[0], terminated=[2]))
    batch = replay.sample(50, np.random.default_rng(0), CPU)
    assert (batch.reward == batch.next_observation[:, 0]).all()
    assert (batch.action == 1.0).all()
    assert transitions(replay) == {(0, 1, False), (1, 2, True)}


def test_no_transition_spans_a_reset_or_a_gap():
    replay = Replay(SPEC, 20)
    replay.append(make_rows([0, 1, 2, 3, 5, 6, 7, 8], first=[0, 2], truncated=[6]))
    # 1 -> 2 is a reset, 3 -> 5 a gap, 6 -> 7 follows a truncation although 7 is not marked as first
    assert transitions(replay) == {(0, 1, False), (2, 3, False), (5, 6, False), (7, 8, False)}


def test_truncation_bootstraps_and_termination_does_not():
    replay = Replay(SPEC, 20)
    replay.append(make_rows([0, 1, 2, 3], first=[0, 2], truncated=[1], terminated=[3]))
    assert transitions(replay) == {(0, 1, False), (2, 3, True)}


def test_rows_appended_one_by_one_link_like_rows_appended_together():
    together, apart = Replay(SPEC, 20), Replay(SPEC, 20)
    together.append(make_rows([0, 1, 2, 3, 4], first=[0, 3]))
    for number in range(5):
        apart.append(make_rows([number], first=[0, 3]))
    assert transitions(together) == transitions(apart)
    assert (together.appended, together.last_sequence) == (apart.appended, apart.last_sequence) == (5, 4)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 11])
def test_full_ring_forgets_the_oldest_and_never_links_new_to_old(chunk: int):
    replay = Replay(SPEC, 4)
    for start in range(0, 11, chunk):
        replay.append(make_rows(list(range(start, min(start + chunk, 11))), first=[0]))
    assert transitions(replay) == {(7, 8, False), (8, 9, False), (9, 10, False)}


def test_padding_is_told_from_uncertified_candidates():
    replay = Replay(SPEC, 4)
    replay.append(make_rows([0]))
    states = replay.sample_states(1, np.random.default_rng(0), CPU)
    assert states.real.tolist() == [[True, True, False]]
    assert torch.isfinite(states.candidates).all()


def test_absorbing_state_may_have_no_candidate_and_is_not_extracted_at():
    rows = make_rows([0, 1], first=[0], terminated=[1])
    rows["support"][1] = False
    rows["log_weight"][1] = -np.inf
    rows["executed"][1] = -1
    replay = Replay(SPEC, 4)
    replay.append(rows)
    assert len(replay) == 1
    assert (replay.sample_states(50, np.random.default_rng(0), CPU).observation == 0).all()


def test_appended_hand_action_outside_beta_is_stored():
    rows = make_rows([0, 1], first=[0])
    rows["candidates"][0, 2] = 0.3
    rows["support"][0, 2] = True
    rows["executed"][0] = 2
    replay = Replay(SPEC, 4)
    replay.append(rows)
    assert replay.sample(1, np.random.default_rng(0), CPU).action.item() == pytest.approx(0.3)


def test_empty_replay_says_so():
    replay = Replay(SPEC, 4)
    with pytest.raises(ValueError, match="no transition yet"):
        replay.sample(1, np.random.default_rng(0), CPU)
    replay.append(make_rows([]))
    with pytest.raises(ValueError, match="no state yet"):
        replay.sample_states(1, np.random.default_rng(0), CPU)


@pytest.mark.parametrize(
    ("column", "index", "value", "rule"),
    [
        ("observation", (1, 0), np.nan, "observation must be finite"),
        ("reward", 1, np.inf, "reward must be finite"),
        ("candidates", (1, 1, 0), np.nan, "candidate of the support must be finite"),
        ("log_weight", (1, 2), -1.0, "-inf outside the support"),
        ("log_weight", (1, 0), -5.0, "add up to 1"),
        ("log_weight", (1, 0), np.nan, "add up to 1"),
        ("is_plan", (1, 1), True, "at most one"),
        ("executed", 1, 2, "executed must point into the support"),
        ("executed", 1, 3, "executed must point into the support"),
        ("executed", 1, -1, "executed must point into the support"),
    ],
)
def test_row_that_breaks_the_contract_is_refused_whole(column: str, index: object, value: float, rule: str):
    rows = make_rows([7, 8], first=[7])
    rows[column][index] = value
    replay = Replay(SPEC, 4)
    with pytest.raises(ValueError, match=rf"sequence 8: .*{rule}"):
        replay.append(rows)
    assert replay.appended == 0


def test_missing_or_misshapen_column_is_named():
    rows = make_rows([0])
    replay = Replay(SPEC, 4)
    with pytest.raises(ValueError, match=r"'support' must be \(1, 3\)"):
        replay.append({**rows, "support": rows["support"][:, :2]})
    del rows["truncated"]
    with pytest.raises(ValueError, match="lacks 'truncated'"):
        replay.append(rows)
