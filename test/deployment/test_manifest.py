import dataclasses
import json
from pathlib import Path

import pytest

from safe_support_ql.deployment.manifest import PolicyContract, load_manifest, manifest_path

TOY = PolicyContract("toy", "5afe", 2, 1, 3, "lattice 2 + plan")


def edit(path: Path, **changes: object) -> None:
    fields = json.loads(manifest_path(path).read_text())
    fields.update(changes)
    manifest_path(path).write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}, default=str))


def test_manifest_survives_a_round_trip(bundle, tmp_path: Path):
    written = bundle(tmp_path / "policy.onnx", b"graph")
    assert load_manifest(tmp_path / "policy.onnx", TOY) == (written, b"graph")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"robot": "other"}, "'robot' is 'toy', must be 'other'; choose the robot .*"),
        ({"safety_hash": "other"}, "'safety_sha256' is '5afe', must be 'other'; it was trained .* again"),
        ({"observation_dim": 3}, "'observation_names' has 2 entries, must have 3"),
        ({"action_dim": 2}, "'action_names' has 1 entries, must have 2"),
        ({"candidates": 54}, "'candidates' is 3, must be 54"),
        ({"candidate_layout": "draws"}, "'candidate_layout' is 'lattice 2 [+] plan', must be 'draws'; choose .*"),
    ],
)
def test_policy_of_another_robot_or_configuration_is_refused(bundle, tmp_path: Path, expected: dict, message: str):
    bundle(tmp_path / "policy.onnx", b"graph")
    with pytest.raises(ValueError, match=rf"policy\.json: {message}$"):
        load_manifest(tmp_path / "policy.onnx", dataclasses.replace(TOY, **expected))


def test_policy_file_swapped_under_the_manifest_is_refused(bundle, tmp_path: Path):
    bundle(tmp_path / "policy.onnx", b"graph")
    (tmp_path / "policy.onnx").write_bytes(b"grapi")
    with pytest.raises(ValueError, match="'policy_sha256' is '[0-9a-f]{64}', must be '[0-9a-f]{64}'"):
        load_manifest(tmp_path / "policy.onnx", TOY)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 2, "'format_version' is 2, must be 1"),
        ("format_version", ..., "'format_version' is None, must be 1"),
        ("alpha", ..., "'alpha' is missing"),
        ("alpha", "0.1", "'alpha' is '0.1', must be float"),
        ("candidates", True, "'candidates' is True, must be int"),
        ("seeds", [0.5], r"'seeds' is \[0.5\], must be list"),
        ("observation_names", "xy", "'observation_names' is 'xy', must be list"),
        ("robot", 3, "'robot' is 3, must be str"),
        ("training", [], r"'training' is \[\], must be dict"),
        ("observation_units", ["m"], "'observation_units' has 1 entries, must have 2 as 'observation_names'"),
        ("colour", "red", "'colour' is no key of format 1"),
    ],
)
def test_damaged_key_is_named_with_what_would_be_right(bundle, tmp_path: Path, key: str, value: object, message: str):
    bundle(tmp_path / "policy.onnx", b"graph")
    edit(tmp_path / "policy.onnx", **{key: value})
    with pytest.raises(ValueError, match=message) as error:
        load_manifest(tmp_path / "policy.onnx", TOY)
    assert "policy.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_or_unreadable_files_are_named(bundle, tmp_path: Path):
    path = tmp_path / "policy.onnx"
    with pytest.raises(ValueError, match=r"policy\.json: cannot be read"):
        load_manifest(path, TOY)
    bundle(path, b"graph")
    path.unlink()
    with pytest.raises(ValueError, match=r"policy\.onnx: cannot be read"):
        load_manifest(path, TOY)
    for text in (b"", b"{", b"\xff\xfe", b"[]"):
        bundle(path, b"graph")
        manifest_path(path).write_bytes(text)
        with pytest.raises(ValueError, match=r"policy\.json: (is not JSON|must be a JSON object)"):
            load_manifest(path, TOY)
