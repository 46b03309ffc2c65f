"""Starts, conducts and stops the ROS graph of a run for the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_support_ql.cli.shared import BAD_INPUT, FAULT
from safe_support_ql.recording.files import RUN_LOCK, shown

if TYPE_CHECKING:
    from safe_support_ql import bringup
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config
    from safe_support_ql.recording.summary import Progress

LOOK_S = 5.0  # search for another safety_monitor, in a domain that the user chose


@contextlib.contextmanager
def sole_user(run: Run) -> Iterator[None]:
    """Lock the run's folder. Raises ValueError if another process works in it."""
    import filelock

    lock = filelock.FileLock(run.folder / RUN_LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"{run.folder}: another process works in it; stop that one first") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def own_graph(run: Run) -> Iterator[bringup.Processes]:
    """The ROS domain of the run (bringup.environment_of) and its processes, which are always stopped.

    Says which domain that is. Raises ValueError if another monitor is active there.
    """
    from safe_support_ql import bringup

    wanted, unwanted, lock = bringup.environment_of(run, os.environ)
    before = dict(os.environ)
    os.environ.update(wanted)
    for name in unwanted:
        del os.environ[name]
    from safe_support_ql.nodes import conductor as conducting

    processes, domain = bringup.Processes(run.logs), os.environ.get("ROS_DOMAIN_ID", "0")
    conducting.join_graph()
    try:
        if lock is None and (others := conducting.other_monitors(LOOK_S)):
            raise ValueError(
                f"another safety_monitor is active in ROS domain {domain}: {', '.join(others)}; stop it"
                + ("" if run.on_hardware else ", or unset ROS_DOMAIN_ID to get an unused domain")
            )
        print(f"run {shown(run.folder)}, ROS_DOMAIN_ID={domain}", flush=True)
        yield processes
    finally:
        processes.stop(bringup.STOP_ORDER)
        conducting.leave_graph()
        if lock is not None:
            lock.release()
        os.environ.clear()
        os.environ.update(before)


def conduct(run: Run, settings: Config, where: Progress, new: bool = False) -> int:
    """Start the nodes, conduct the run, and stop the nodes. A new run that is refused leaves no folder."""
    from safe_support_ql import panel

    screen: panel.Screen | None = None
    status = FAULT
    try:
        with own_graph(run) as processes:
            from safe_support_ql.nodes import conductor as conducting

            screen = panel.make(sys.stdout.isatty())
            conductor = conducting.Conductor(run, settings, where, processes, screen)
            conducting.heed_signals(conductor, processes)
            status = conducting.conduct(conductor)
            conductor.close()
    except ValueError:
        status = BAD_INPUT
        raise
    finally:
        if screen is not None:
            screen.close()
        if new and status == BAD_INPUT:
            shutil.rmtree(run.folder, ignore_errors=True)  # remove the incomplete folder
    return status
