import dataclasses
import hashlib
from pathlib import Path

import pytest

from safe_support_ql.deployment.manifest import Manifest, encode_manifest, manifest_path


def write_bundle(path: Path, graph: bytes, **changes: object) -> Manifest:
    """policy.onnx = `graph` with a manifest that fits it, but for `changes`."""
    manifest = Manifest(
        robot="toy",
        observation_names=["x", "y"],
        observation_units=["m", "m"],
        action_names=["v"],
        action_units=["m/s"],
        candidates=3,
        candidate_layout="lattice 2 + plan",
        alpha=0.1,
        gamma=0.99,
        seeds=[0, 1],
        git_revision="0" * 40,
        package_version="0.1.0",
        created="2026-01-01T00:00:00+00:00",
        policy_sha256=hashlib.sha256(graph).hexdigest(),
        safety_sha256="5afe",
        training={"updates": 10, "note": "test"},
    )
    path.write_bytes(graph)
    manifest = dataclasses.replace(manifest, **changes)
    manifest_path(path).write_bytes(encode_manifest(manifest))
    return manifest


@pytest.fixture
def bundle():
    return write_bundle
