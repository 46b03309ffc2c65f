"""Worker processes end with the command, also when nobody lets it clean up."""

import subprocess
import sys
import time

import psutil

COMMAND = """
import os, time
from safe_support_ql.experiments.workers import pool
if __name__ == "__main__":
    with pool(2) as workers:
        print(*{workers.submit(os.getpid).result() for _ in range(8)}, flush=True)
        list(workers.map(time.sleep, (600, 600)))
"""


def test_a_killed_command_leaves_no_worker(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    command = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    (process, *_) = [psutil.Process(int(pid)) for pid in command.stdout.readline().split()]
    assert process.is_running()
    command.kill()
    command.wait()
    end = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
