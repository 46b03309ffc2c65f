"""Processes that play episodes: none outlives the command that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def pool(workers: int) -> ProcessPoolExecutor:
    """So many processes, each a fresh interpreter."""
    return ProcessPoolExecutor(workers, get_context("spawn"), _end_with, (os.getpid(),))


def _end_with(parent: int) -> None:
    """Without this, a killed command leaves workers behind that play on, for minutes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
