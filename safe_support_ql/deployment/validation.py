"""The validation report validation.json beside a policy: what it holds, and the check before a robot obeys that policy.

"Validated in simulation before hardware" is enforced here: a policy is deployed only with a report that passed and that
belongs to exactly this policy, manifest, safety configuration, criteria and version of this package. The report is
sealed by a hash over itself, so that an edit by accident is noticed; who edits on purpose can seal it again, unless a
key is configured (as for the ledger, recording/chain.py).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safe_support_ql import __version__
from safe_support_ql.deployment.manifest import manifest_path
from safe_support_ql.parameters import param
from safe_support_ql.robots.claims import FAULTY, NOMINAL

FORMAT = 2  # 1: without the world in which sensors fail
SEAL = "seal"


@dataclass(frozen=True)
class ValidationConfig:
    """What a policy has to show in simulation before a robot obeys it: `safe-support-ql validate`."""

    episodes: int = param(100, "1", 1, 1_000_000, "held-out episodes in each world")
    unsafe_visits: int = param(0, "1", 0, 1_000_000, "in all worlds together, at most")
    success: float = param(0.5, "1", 0.0, 1.0, "in the nominal world by ground truth, at least")
    success_by_sensors: float = param(
        0.25, "1", 0.0, 1.0, "in each world, at least: wrong odometry puts goals into walls"
    )
    interventions: float = param(0.05, "1", 0.0, 1.0, "share of the control ticks of each world, at most")


def report_path(policy: Path) -> Path:
    """policy.onnx -> validation.json"""
    return policy.with_name("validation.json")


def bound_to(policy: Path, safety_hash: str, criteria: ValidationConfig) -> dict[str, Any]:
    """What a report is about; with anything else, it says nothing. Raises OSError."""
    return {
        "format": FORMAT,
        "policy_sha256": hashlib.sha256(policy.read_bytes()).hexdigest(),
        "manifest_sha256": hashlib.sha256(manifest_path(policy).read_bytes()).hexdigest(),
        "safety_sha256": safety_hash,
        "package_version": __version__,
        "criteria": asdict(criteria),
    }


def objections(worlds: Mapping[str, Mapping[str, Any]], criteria: ValidationConfig) -> list[str]:
    """Which criteria are missed, in words; none if all hold. `worlds`: rows of experiments.evaluate.summarise."""
    found = []
    visits = sum(row["unsafe_visits"] for row in worlds.values())
    if visits > criteria.unsafe_visits:
        found.append(f"{visits} unsafe visits, at most {criteria.unsafe_visits} are allowed")
    for name, row in worlds.items():
        if name == NOMINAL and row["success_rate"] < criteria.success:
            found.append(f"{name}: success {row['success_rate']:.3f}, must be at least {criteria.success:g}")
        if name == FAULTY:  # where sensors fail, to stand and to latch is right
            continue
        if row["success_by_sensors"] < criteria.success_by_sensors:
            share, least = row["success_by_sensors"], criteria.success_by_sensors
            found.append(f"{name}: success by its sensors {share:.3f}, must be at least {least:g}")
        if row["intervention_rate"] > criteria.interventions:
            share = row["intervention_rate"]
            found.append(f"{name}: interventions in {share:.4f} of the ticks, at most {criteria.interventions:g}")
    return found


def sealed(report: Mapping[str, Any], key: bytes = b"") -> dict[str, Any]:
    """`report` with its seal: a hash over all of it, with `key` an HMAC."""
    content = {name: value for name, value in report.items() if name != SEAL}
    text = json.dumps(content, sort_keys=True).encode()
    seal = hmac.new(key, text, hashlib.sha256).hexdigest() if key else hashlib.sha256(text).hexdigest()
    return content | {SEAL: seal}


def check(policy: Path, safety_hash: str, criteria: ValidationConfig, key: bytes = b"") -> dict[str, Any]:
    """The report of `policy`, if a robot may obey it. Raises ValueError: one line with the reason and what to do."""
    path, again = report_path(policy), f"; run: safe-support-ql validate {policy}"
    try:
        report = json.loads(path.read_text())
        right = bound_to(policy, safety_hash, criteria)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}){again}") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}){again}") from None
    if not isinstance(report, dict) or not hmac.compare_digest(str(report.get(SEAL)), sealed(report, key)[SEAL]):
        signed = "or sealed with another key" if key else "or sealed with a key that is not set here"
        raise ValueError(f"{path}: was edited, {signed}{again}")
    for name, value in right.items():
        if report.get(name) != value:
            raise ValueError(f"{path}: {DIFFERS[name]} ({name} is {report.get(name)!r}, here {value!r}){again}")
    if "failed" not in report:
        raise ValueError(f"{path}: does not say whether it passed{again}")
    if report["failed"]:
        raise ValueError(f"{path}: it failed: {'; '.join(report['failed'])}")
    return report


DIFFERS = {
    "format": "is of another format",
    "policy_sha256": "is the report of another policy",
    "manifest_sha256": "the manifest is not the one that was validated",
    "safety_sha256": "the safety configuration, or the robot's code, has changed since",
    "package_version": "it was validated with another version of this package",
    "criteria": "it was validated against other criteria",
}
