"""The command line: safe-support-ql COMMAND, one file per command; a new option goes to the command's `add`.

`add` declares the options of a command, and `run` does the work and returns the exit status. Heavy imports stay inside
the functions, so that --help answers at once. Exit status: 0 without an unsafe visit, 1 with one (calibrate: or a
margin too small; faults: or a wrong reaction), 2 bad input, 3 a fault (the message says how to continue), 130 Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from safe_support_ql.cli import calibrate, evaluate, falsify, faults, ledger, report, simulate, train
from safe_support_ql.cli.shared import BAD_INPUT, FAULT, INTERRUPTED, Parser

COMMANDS = (train, simulate, ledger, evaluate, report, faults, falsify, calibrate)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(prog="safe-support-ql", description="Safe-Support Q-Learning behind a certified gate.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status = options.run(options)
    except ValueError as error:  # bad input
        print(f"error: {error}", file=sys.stderr)
        status = BAD_INPUT
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except Exception:  # a fault of this program, which must not look like an unsafe visit
        traceback.print_exc()
        status = FAULT
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)
