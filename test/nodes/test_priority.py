"""Real-time priority is taken where it is permitted, for all threads, and refused with a reason where it is not."""

import subprocess
import sys

CHILD = """
import os, resource, threading, time
from safe_support_ql.nodes.lifecycle import GATE_PRIORITY, real_time_priority

threading.Thread(target=time.sleep, args=(30.0,), daemon=True).start()
if {unprivileged}:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    if os.geteuid() == 0:
        os.setuid(65534)


def policies():
    threads = os.listdir("/proc/self/task")
    return {{os.sched_getscheduler(int(thread)) & ~os.SCHED_RESET_ON_FORK for thread in threads}}


print(real_time_priority(GATE_PRIORITY) or "taken", policies() == {{os.SCHED_FIFO}}, end=" ")
real_time_priority(0)
print(policies() == {{os.SCHED_OTHER}}, flush=True)
os._exit(0)
"""


def ask(unprivileged: bool) -> str:
    script = CHILD.format(unprivileged=unprivileged)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_every_thread_has_it_or_none_and_a_reason_is_given() -> None:
    assert ask(unprivileged=False) in ("taken True True", "Operation not permitted False True")
    assert ask(unprivileged=True) == "Operation not permitted False True"
