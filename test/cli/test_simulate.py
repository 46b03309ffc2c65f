"""A policy that does not fit is refused before anything starts. test/system/test_train.py drives with fitting ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_support_ql import config
from safe_support_ql.deployment.manifest import Manifest, PolicyContract, encode_manifest

Refused = Callable[..., str]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a policy.onnx for the diff_drive with discrete actions, in the working folder."""
    settings = config.load_robot("diff_drive")
    robot = settings.robot
    contract = PolicyContract.of(robot, False, settings.safety_hash)
    (tmp_path / "policy.onnx").write_bytes(b"graph")
    return Manifest(
        robot=robot.name, observation_names=list(robot.observation_names),
        observation_units=list(robot.observation_units), action_names=list(robot.action_names),
        action_units=list(robot.action_units), candidates=contract.candidates,
        candidate_layout=contract.candidate_layout, alpha=0.1, gamma=0.9, seeds=[0], git_revision="-",
        package_version="0", created="-", policy_sha256=hashlib.sha256(b"graph").hexdigest(),
        safety_sha256=settings.safety_hash, training={},
    )  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [("robot", "cart_pole"), ("safety_sha256", "0"), ("policy_sha256", "0")])
def test_a_model_of_something_else_is_refused(
    refused: Refused, tmp_path: Path, manifest: Manifest, key: str, value: str
) -> None:
    (tmp_path / "policy.json").write_bytes(encode_manifest(dataclasses.replace(manifest, **{key: value})))
    assert f"'{key}' is '{value}', must be" in refused("simulate", "--policy", "policy.onnx")
    assert not (tmp_path / "runs").exists()


def test_a_model_of_other_actions_is_refused(refused: Refused, tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "policy.json").write_bytes(encode_manifest(manifest))
    said = refused("simulate", "--policy", "policy.onnx", "--actions", "continuous")
    assert "'candidate_layout' is 'lattice" in said and "discrete or continuous" in said
    assert not (tmp_path / "runs").exists()
