"""What the tests of several commands use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from safe_support_ql import bringup, cli, config

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command in an empty folder; its one line, after checking that it is the only one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        said = capsys.readouterr()
        assert left.value.code == 2
        assert not said.out and said.err.startswith("error: ") and said.err.count("\n") == 1, said
        return said.err

    return run


@pytest.fixture
def begun(tmp_path: Path) -> bringup.Run:
    """A run that was prepared and recorded nothing."""
    return bringup.create_run(tmp_path / "runs", config.load_robot("diff_drive"), seed=3)
