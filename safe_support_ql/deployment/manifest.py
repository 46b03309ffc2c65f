"""The manifest policy.json: its fields, and the checks that it fits policy.onnx and what it is used for."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_origin

from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import EXTRA_SLOTS, candidate_count, candidate_layout

FORMAT_VERSION = 1
REMEDY = {  # where the values alone do not show what to do
    "robot": "; choose the robot that it was trained for: --robot, or robot:= for a launch file",
    "candidate_layout": "; choose the actions, discrete or continuous, that it was trained with",
    "safety_sha256": "; it was trained with other safety settings or with other code of the robot: "
    "use its run's config.yaml and that code, or train again",
    "policy_sha256": "; the file is not the one that was exported: copy it again",
}


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """What the training says. Names and units are those of the components of observation and action."""

    robot: str
    observation_names: list[str]  # length D
    observation_units: list[str]
    action_names: list[str]  # length A
    action_units: list[str]
    candidate_layout: str  # CandidateSource.layout
    alpha: float  # reward units
    gamma: float
    seeds: list[int]
    git_revision: str
    safety_sha256: str  # of the safety configuration under which the data was collected
    training: dict[str, float | int | str]  # updates, decisions, journal sequence, parity error, ledger head, ...


@dataclass(frozen=True, kw_only=True)
class Manifest(PolicyFacts):
    """Every field of policy.json: those above, and what the export adds."""

    candidates: int  # K, padded
    package_version: str
    created: str  # ISO 8601, UTC
    policy_sha256: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class PolicyContract:
    """The facts that a manifest must match before its policy may be used: robot, spaces and safety configuration."""

    robot: str
    safety_hash: str  # sha256 of the safety configuration, `Config.safety_hash`
    observation_dim: int  # D
    action_dim: int  # A
    candidates: int  # K, padded
    candidate_layout: str

    @classmethod
    def of(cls, robot: Robot, continuous: bool, safety_hash: str) -> "PolicyContract":
        """The contract of `robot` with discrete or continuous actions."""
        return cls(
            robot=robot.name,
            safety_hash=safety_hash,
            observation_dim=len(robot.observation_names),
            action_dim=len(robot.action_names),
            candidates=candidate_count(robot, continuous) + EXTRA_SLOTS,
            candidate_layout=candidate_layout(robot, continuous),
        )


def manifest_path(policy_path: Path) -> Path:
    """policy.onnx -> policy.json"""
    return policy_path.with_suffix(".json")


def encode_manifest(manifest: Manifest) -> bytes:
    return (json.dumps(dataclasses.asdict(manifest), indent=2, allow_nan=False) + "\n").encode()


def load_manifest(policy_path: Path, contract: PolicyContract) -> tuple[Manifest, bytes]:
    """Read policy.onnx and the manifest beside it, and verify that they belong together and fulfil the contract.

    Returns the manifest and the verified bytes of policy.onnx. Make the session from these bytes, because the file may
    be replaced. Raises ValueError, one line that names file, key and what would be right.
    """
    path = manifest_path(policy_path)
    try:
        text, policy = path.read_bytes(), policy_path.read_bytes()
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); export the policy again") from error
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); export the policy again") from error
    manifest = _decoded(path, fields)

    expected: dict[str, object] = {
        "robot": contract.robot,
        "safety_sha256": contract.safety_hash,
        "policy_sha256": hashlib.sha256(policy).hexdigest(),
        "candidates": contract.candidates,
        "candidate_layout": contract.candidate_layout,
    }
    for key, right in expected.items():
        if getattr(manifest, key) != right:
            raise ValueError(f"{path}: '{key}' is {getattr(manifest, key)!r}, must be {right!r}{REMEDY.get(key, '')}")
    for key, wanted in (("observation", contract.observation_dim), ("action", contract.action_dim)):
        names, units = getattr(manifest, f"{key}_names"), getattr(manifest, f"{key}_units")
        if len(units) != len(names):
            raise ValueError(f"{path}: '{key}_units' has {len(units)} entries, must have {len(names)} as '{key}_names'")
        if len(names) != wanted:
            raise ValueError(f"{path}: '{key}_names' has {len(names)} entries, must have {wanted}")
    return manifest, policy


def _decoded(path: Path, fields: object) -> Manifest:
    """The manifest in `fields`, after verification that every key is present and has its type."""
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: must be a JSON object")
    if fields.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path}: 'format_version' is {fields.get('format_version')!r}, must be {FORMAT_VERSION}")
    for field in dataclasses.fields(Manifest):
        if field.name not in fields:
            raise ValueError(f"{path}: '{field.name}' is missing; export the policy again")
        if not _has_type(fields[field.name], field.type):
            right = getattr(field.type, "__name__", field.type)
            raise ValueError(f"{path}: '{field.name}' is {fields[field.name]!r}, must be {right}")
    unknown = set(fields) - {field.name for field in dataclasses.fields(Manifest)}
    if unknown:
        raise ValueError(f"{path}: '{min(unknown)}' is no key of format {FORMAT_VERSION}; remove it")
    return Manifest(**fields)


def _has_type(value: object, annotation: object) -> bool:
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    if get_origin(annotation) is list:
        return isinstance(value, list) and all(_has_type(item, get_args(annotation)[0]) for item in value)
    return isinstance(value, dict) and all(isinstance(item, int | float | str) for item in value.values())
