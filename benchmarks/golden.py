"""The gate, the worlds and the learner bit by bit as they were: a reference for every change of structure.

    python benchmarks/golden.py                 compare with test/golden/
    python benchmarks/golden.py --record        write test/golden/ anew, after a change of behaviour that is meant
    python benchmarks/golden.py --against REV   compare with what another revision does, on this machine
    python benchmarks/golden.py --dump FILE     write what this revision does

For each robot, all from fixed seeds: a collection with learning in lock-step, without ROS as in experiments/train.py,
with discrete and with continuous actions (`lock-step`), and 10,000 irregular calls on a gate in real time, as tape.py
plays them. Every row, a decision or a call, has its verdict, reason and state by name, a few numbers to read, and a
CRC-32 over every bit that the gate gave away. What a message says is not compared, only whether there is one.

Where processor, libraries and threads are those of the recording (the fingerprint), every bit must be the same.
Elsewhere sums are rounded differently, and sooner or later a margin next to a threshold falls on its other side, after
which two runs have nothing in common. There the first difference of a decision may not come before EARLIEST of the
rows, and until then every number agrees within TOLERANCE; learning is compared where no decision differs.

Exit status 1 on a difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this revision, whichever one is installed

from benchmarks import tape
from safe_support_ql import config as configuration
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision, State
from safe_support_ql.safety.timing import Clock

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "test" / "golden"
ROBOTS = ("diff_drive", "cart_pole")
SEED = 20_261
TICKS = 2_000
CALLS = 10_000
LEARNER = {"learner.hidden": 32, "learner.batch_size": 64, "learner.updates_per_tick": 0.25, "learner.device": "cpu"}
CASES = {  # (in lock-step, continuous)
    "diff_drive/tape": (False, False),
    "cart_pole/tape": (False, True),
    "diff_drive/lock-step discrete": (True, False),
    "diff_drive/lock-step continuous": (True, True),
    "cart_pole/lock-step discrete": (True, False),
    "cart_pole/lock-step continuous": (True, True),
}
# Elsewhere than where it was recorded:
EARLIEST = 0.02  # share of the rows
TOLERANCE = 1e-4  # of actions, margins (scaled) and rewards
LEARNT = 0.02  # relative, of the weights' norms and the metrics
DECIDED = ("call", "done", "verdict", "reason", "state", "index", "intervention", "certified", "centre")

Array = NDArray[Any]
Data = dict[str, Array]  # "robot/case/rows/column" [rows, ...] and "robot/case/end/name"


# --- what is run ---------------------------------------------------------------------------------------------------


def lockstep(robot_name: str, continuous: bool) -> tuple[list[tape.Row], dict[str, Array]]:
    """Whole episodes of at least TICKS control ticks with learning, as `experiments.train.train` plays them."""
    import torch

    from safe_support_ql.behavior.policies import BehaviorPolicy
    from safe_support_ql.experiments.episodes import steps
    from safe_support_ql.learning.ingest import problem_spec, replay_rows
    from safe_support_ql.learning.trainer import Trainer
    from safe_support_ql.recording.journal import pack, record_type
    from safe_support_ql.recording.ledger import PHASES
    from safe_support_ql.recording.seeds import first_of_run
    from safe_support_ql.simulation.simulation import Outcome, Simulation

    def record(outcome: Outcome, decision: Decision, first: bool) -> Array:
        assert decision.candidates is not None
        return pack(
            dtype, decision.sequence, decision.candidates, decision.index, VERDICTS.index(decision.verdict),
            REASONS.index(decision.reason), PHASES.index("collection"), outcome.reward, first,
            outcome.terminated, outcome.truncated, decision.intervention,
        )  # fmt: skip

    torch.set_num_threads(1)
    config = configuration.load_robot(robot_name, LEARNER)
    robot = config.robot
    sim, gate = Simulation(robot), tape.make_gate(config, continuous, SEED, Clock.LOCKSTEP)
    policy = BehaviorPolicy(config.behavior, robot, SEED)
    trainer = Trainer(replace(config.learner, seed=SEED), problem_spec(robot, continuous))
    dtype = record_type(len(robot.observation_names), gate.support.size, len(robot.action_names))
    rows: list[tape.Row] = []
    metrics: dict[str, float] = {}
    episodes = 0
    while sim.control_ticks < TICKS:
        records: list[NDArray[np.void]] = []
        for outcome, decision in steps(sim, gate, policy, first_of_run(SEED) + episodes, episodes):
            if decision.candidates is not None:  # nothing is learnt before the gate is open
                records.append(record(outcome, decision, not records))
            row = tape.row(gate, None, decision)
            exact = tape.digest(row["digest"], outcome.reward, outcome.min_margin, outcome.unsafe_substeps)
            rows.append(row | {"done": outcome.terminated, "reward": np.float32(outcome.reward), "digest": exact})
        trainer.replay.append(replay_rows(np.concatenate(records), robot, config.behavior))
        due = int(trainer.config.updates_per_tick * trainer.replay.appended) - trainer.updates
        metrics = trainer.update(due) if due > 0 else metrics
        episodes += 1
    sim.close()
    weights = [p.detach().numpy() for p in trainer.q_network.parameters()]
    sha256 = hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()
    return rows, {
        "weights_sha256": np.array(sha256),
        "weights_norm": np.array([np.linalg.norm(w.astype(np.float64).ravel()) for w in weights]),
        "metrics": np.array([metrics[name] for name in sorted(metrics)]),
    }


def run(case: str) -> Data:
    """What this revision does in one of CASES."""
    robot_name = case.split("/")[0]
    in_lockstep, continuous = CASES[case]
    end: dict[str, Array] = {}
    if in_lockstep:
        rows, end = lockstep(robot_name, continuous)
    else:
        rows = tape.Tape(configuration.load_robot(robot_name), continuous, SEED).play(CALLS)
    data = {f"{case}/rows/{name}": _column([row[name] for row in rows]) for name in rows[0]}
    return data | {f"{case}/end/{name}": value for name, value in end.items()}


def _column(values: list[Any]) -> Array:
    array = np.array(values)
    if array.dtype.kind == "i":
        return array.astype(np.uint32 if array.max() > np.iinfo(np.int32).max else np.int32)
    return array


def fingerprint() -> dict[str, Any]:
    """What rounding depends on: processor, libraries, threads, and the settings that stand for another processor."""
    import torch

    torch.set_num_threads(1)
    cpu: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    packages = ("numpy", "scipy", "numba", "llvmlite", "torch", "pybullet")
    settings = (
        "OMP_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE",
        "ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES", "MKL_CBWR",
    )  # fmt: skip
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "flags": " ".join(sorted(cpu.get("flags", cpu.get("Features", "")).split())),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        **{name: os.environ.get(name, "") for name in settings},
    }


def run_all(cases: list[str]) -> tuple[Data, dict[str, Any]]:
    """What this revision does in `cases`, and where that was. Two side by side, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that begin below
    data: Data = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        where = pool.submit(fingerprint)
        for done in pool.map(run, cases):
            data |= done
        return data, where.result()


# --- files ---------------------------------------------------------------------------------------------------------


def save(path: Path, data: Data, where: Mapping[str, Any]) -> None:
    """Write one .npz. Names are stored as numbers and a table of them, so that their order means nothing."""
    stored: Data = {"fingerprint": np.array(json.dumps(where, sort_keys=True))}
    for key, array in data.items():
        if array.dtype.kind == "U" and array.ndim:
            names, codes = np.unique(array, return_inverse=True)
            stored[f"{key}:names"], array = names, codes.astype(np.uint8)
        stored[key] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.savez_compressed(file, **stored)  # type: ignore[arg-type]


def load(*paths: Path) -> tuple[Data, dict[str, Any]]:
    """What `save` wrote. Raises ValueError where files were recorded in different places."""
    data: Data = {}
    places: set[str] = set()
    for path in paths:
        with np.load(path) as stored:
            places.add(str(stored["fingerprint"]))
            for key in stored.files:
                if key != "fingerprint" and not key.endswith(":names"):
                    names = f"{key}:names"
                    data[key] = stored[names][stored[key]] if names in stored.files else stored[key]
    if len(places) != 1:
        raise ValueError("the references were recorded in different places; record all of them with --record")
    return data, json.loads(places.pop())


def reference_files() -> list[Path]:
    """One a robot."""
    return [GOLDEN / f"{name}.npz" for name in ROBOTS]


# --- comparison ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How far one case agrees: `same` of `rows`, then `first` is the first difference ('' where there is none)."""

    case: str
    rows: int
    same: int
    first: str
    accepted: bool


def part(data: Data, case: str, kind: str) -> Data:
    """Columns ("rows") or final values ("end") of a case."""
    prefix = f"{case}/{kind}/"
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def differing(was: Array, now: Array, tolerance: float | None) -> NDArray[np.bool_]:
    """Rows [n] of two columns that differ: in any bit, or with a tolerance by more than that."""
    if was.shape != now.shape:
        return np.ones(len(was), bool)
    if was.dtype.kind != "f" or now.dtype.kind != "f":
        unequal = was != now
    elif tolerance is None:
        unequal = (was != now) & ~(np.isnan(was) & np.isnan(now)) | (np.signbit(was) != np.signbit(now))
    else:
        unequal = ~np.isclose(was, now, rtol=0.0, atol=tolerance, equal_nan=True)
    return np.asarray(unequal.reshape(len(was), -1).any(axis=1))


def first_difference(was: Data, now: Data, columns: list[str], tolerance: float | None) -> tuple[int, str]:
    """(number of equal rows, what differs in the next one); a length is compared last."""
    count = min(len(next(iter(was.values()))), len(next(iter(now.values()))))
    at, column = count, ""
    for name in columns:
        if hits := np.flatnonzero(differing(was[name][:at], now[name][:at], tolerance)).tolist():
            at, column = hits[0], name
    if column:
        # Of the columns that differ there, the first one that says most.
        column = next(n for n in columns if differing(was[n][at : at + 1], now[n][at : at + 1], tolerance)[0])
        if column == "digest":
            return at, f"row {at}: bits that no column shows"
        return at, f"row {at}: {column} {_plain(was[column][at])} -> {_plain(now[column][at])}"
    lengths = {len(next(iter(data.values()))) for data in (was, now)}
    return count, f"row {count}: one of the two ends here" if len(lengths) > 1 else ""


def _rounded(rows: Data, count: int) -> Data:
    """The first `count` rows. A margin below 0 is cut off where the search meets it, which rounding decides."""
    cut = {name: column[:count] for name, column in rows.items()}
    return cut | {name: np.maximum(cut[name], 0.0) for name in ("margin", "plan_margin")}


def _plain(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value.item()) or "none"


def compare(case: str, before: Data, after: Data, exact: bool) -> Result:
    """One case of two recordings."""
    was, now = part(before, case, "rows"), part(after, case, "rows")
    if not was or was.keys() != now.keys():
        columns = ", ".join(sorted(was.keys() ^ now.keys()))
        return Result(case, 0, 0, f"one of the two lacks {columns or 'this case'}", False)
    rows = len(now["state"])
    decided = [name for name in DECIDED if name in was]
    others = [name for name in was if name not in decided and name != "digest"]
    ends = part(before, case, "end"), part(after, case, "end")
    if exact:
        same, first = first_difference(was, now, [*decided, *others, "digest"], None)
        if not first and (unequal := [name for name in ends[0] if not np.array_equal(ends[0][name], ends[1][name])]):
            first = f"end: {', '.join(unequal)}"
        return Result(case, rows, same, first, not first)
    same, first = first_difference(was, now, decided, None)
    numbers, off = first_difference(_rounded(was, same), _rounded(now, same), others, TOLERANCE)
    if off:
        return Result(case, rows, numbers, off, False)
    if not first:
        learnt = {name: value for name, value in ends[0].items() if value.dtype.kind == "f"}
        if unequal := [n for n, v in learnt.items() if not np.allclose(v, ends[1][n], rtol=LEARNT, atol=LEARNT)]:
            return Result(case, rows, same, f"end: {', '.join(unequal)}", False)
    return Result(case, rows, same, first, not first or same >= EARLIEST * rows)


def table(results: list[Result], mode: str) -> str:
    """80 columns."""
    lines = [*textwrap.wrap(mode, 80), "", f"{'':33}{'rows':>7}{'equal':>7}  first difference"]
    for r in results:
        where = r.first.partition(":")[0] or "none"
        lines.append(f"{r.case:33}{r.rows:7d}{r.same:7d}  {where}{'' if r.accepted else '  DIFFERS'}")
    for r in results:
        if r.first:
            lines += textwrap.wrap(f"{r.case}: {r.first}", 80, subsequent_indent="    ")
    return "\n".join(lines)


# --- what the tapes contain ----------------------------------------------------------------------------------------


def counts(data: Data, case: str, column: str) -> Counter[str]:
    """How often each name occurs in a column."""
    return Counter(part(data, case, "rows")[column].tolist())


def uncovered(data: Data) -> list[str]:
    """Calls, verdicts, reasons and states that a tape lacks: what it does not show it cannot protect."""
    wanted = {
        "call": tape.CALLS, "verdict": VERDICTS, "reason": REASONS, "state": tuple(state.value for state in State),
    }  # fmt: skip
    return [
        f"{case}: no {column} {name}"
        for case, (in_lockstep, _) in CASES.items()
        for column, names in wanted.items()
        for name in names
        if not in_lockstep and not counts(data, case, column)[name]
    ]


def coverage(data: Data) -> str:
    """Counts of the tapes, 80 columns."""
    cases = [case for case, (in_lockstep, _) in CASES.items() if not in_lockstep]
    lines = [f"{'':34}" + "".join(f"{case:>18}" for case in cases)]
    for column in ("call", "verdict", "reason", "state"):
        tables = [counts(data, case, column) for case in cases]
        for name in sorted(set().union(*tables) - {tape.NONE}):
            lines.append(f"{f'{column} {name}':34}" + "".join(f"{c[name]:18d}" for c in tables))
    return "\n".join(lines)


# --- commands ------------------------------------------------------------------------------------------------------


def dump_of(tree: Path, only: str, file: Path) -> tuple[Data, dict[str, Any]]:
    """What the revision in `tree` does, by its own copy of this script."""
    script = tree / "benchmarks" / "golden.py"
    if not script.is_file():
        raise SystemExit(f"{tree}: has no benchmarks/golden.py; compare with a later revision")
    command = [sys.executable, str(script), "--dump", str(file), "--only", only]
    subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True)
    return load(file)


def against(revision: str, only: str, cases: list[str]) -> tuple[list[Result], str]:
    """Compare with another revision, checked out beside this one."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            before, _ = dump_of(tree, only, Path(folder) / "before.npz")
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
        after, _ = dump_of(ROOT, only, Path(folder) / "after.npz")
    return [compare(case, before, after, True) for case in cases], f"{revision} and this tree, bit by bit."


def with_reference(cases: list[str]) -> tuple[list[Result], str]:
    """Compare with test/golden/."""
    before, recorded = load(*reference_files())
    after, here = run_all(cases)
    other = [name for name in recorded if recorded[name] != here.get(name)]
    mode = "Bit by bit: processor, libraries and threads are those of the recording."
    if other:
        mode = (
            f"Within tolerance: {', '.join(other)} differ from the recording. Decisions may differ after "
            f"{EARLIEST:.0%} of the rows; numbers before by {TOLERANCE:g}."
        )
    return [compare(case, before, after, not other) for case in cases], mode


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--record", action="store_true")
    what.add_argument("--against", metavar="REV")
    what.add_argument("--dump", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case]
    if not cases or (arguments.record and arguments.only):
        parser.error(f"--record writes all cases; --only takes part of a name of {', '.join(CASES)}")
    if arguments.dump:
        save(arguments.dump, *run_all(cases))
        return
    if arguments.record:
        data, where = run_all(cases)
        print(coverage(data))
        if missing := uncovered(data):
            raise SystemExit("\n".join(["not written; choose another SEED:", *missing]))
        for path, name in zip(reference_files(), ROBOTS, strict=True):
            save(path, {key: value for key, value in data.items() if key.startswith(f"{name}/")}, where)
        return
    results, mode = against(arguments.against, arguments.only, cases) if arguments.against else with_reference(cases)
    print(table(results, mode))
    raise SystemExit(any(not result.accepted for result in results))


if __name__ == "__main__":
    main()
