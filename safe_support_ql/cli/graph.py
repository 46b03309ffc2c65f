"""Starts, conducts and stops the ROS graph of a run for the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from safe_support_ql.cli.shared import BAD_INPUT, FAULT
from safe_support_ql.recording.files import RUN_LOCK

if TYPE_CHECKING:
    from safe_support_ql import bringup
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config
    from safe_support_ql.recording.summary import Progress

LOOK_S = 2.0  # search for another safety_monitor, in a domain that the user chose


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
    """A ROS domain of the run's own, unless the user chose one, and its processes, which are always stopped."""
    from safe_support_ql import bringup

    domain, lock = (None, None) if "ROS_DOMAIN_ID" in os.environ else bringup.claim_domain()
    wanted, unwanted = bringup.ros_environment(os.environ, domain)
    before = dict(os.environ)
    os.environ.update(wanted)
    for name in unwanted:
        del os.environ[name]
    from safe_support_ql.nodes import conductor as conducting

    processes = bringup.Processes(run.logs)
    conducting.join_graph()
    try:
        if domain is None and (others := conducting.other_monitors(LOOK_S)):
            raise ValueError(
                f"another safety_monitor is active in ROS domain {os.environ['ROS_DOMAIN_ID']}: {', '.join(others)}; "
                "stop it, or unset ROS_DOMAIN_ID to get an unused domain"
            )
        yield processes
    finally:
        processes.stop(bringup.STOP_ORDER)
        conducting.leave_graph()
        if lock is not None:
            lock.release()
        os.environ.clear()
        os.environ.update(before)


def announce(run: Run) -> None:
    """Print the run's folder and its ROS domain."""
    from safe_support_ql import panel

    print(f"run {panel.shown(run.folder)}, ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}", flush=True)


def heed_signals(conductor: Any, processes: bringup.Processes) -> None:
    """The first Ctrl-C asks the conductor to stop; the second kills the nodes."""
    from safe_support_ql import bringup

    def interrupt(number: int, frame: FrameType | None) -> None:
        if conductor.interrupted:
            processes.kill()
        conductor.interrupted = True

    for number in bringup.stop_signals():
        signal.signal(number, interrupt)


def conduct(run: Run, settings: Config, where: Progress, new: bool = False) -> int:
    """Start the nodes, conduct the run, and stop the nodes. A new run that is refused leaves no folder."""
    from safe_support_ql import panel

    screen: panel.Screen | None = None
    status = FAULT
    try:
        with own_graph(run) as processes:
            from safe_support_ql.nodes import conductor as conducting

            announce(run)
            screen = panel.make(sys.stdout.isatty())
            conductor = conducting.Conductor(run, settings, where, processes, screen)
            heed_signals(conductor, processes)
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
