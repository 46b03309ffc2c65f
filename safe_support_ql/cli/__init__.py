"""The command line: safe-support-ql COMMAND, one file per command; a new option goes to the command's `add`.

`add` declares the options of a command, and `run` does the work and returns the exit status; --help quotes the first
line of its file. Heavy imports stay inside the functions, so that --help answers at once. Exit status: 0 without an
unsafe visit, 1 with one (calibrate: or a margin too small; faults: or a wrong reaction; ledger: or a record that is not
as it was), 2 bad input, 3 a fault (the message says how to continue), 130 Ctrl-C.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from safe_support_ql.cli import (
    bag,
    calibrate,
    deploy,
    doctor,
    evaluate,
    falsify,
    faults,
    learn,
    ledger,
    operator,
    replay,
    report,
    simulate,
    stand_in,
    swap,
    train,
    validate,
)  # fmt: skip
from safe_support_ql.cli.shared import BAD_INPUT, FAULT, INTERRUPTED, Parser

COMMANDS = (
    train, simulate, learn, validate, deploy, swap, operator, doctor, stand_in, ledger, evaluate, report, bag, replay,
    faults, falsify, calibrate,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    program = Parser(prog="safe-support-ql", description="Safe-Support Q-Learning behind a certified gate.")
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].replace("_", "-")
        parser = commands.add_parser(name, help=str(command.__doc__).partition(": ")[2].rstrip("."))
        command.add(parser)
        parser.set_defaults(run=command.run)
    options = program.parse_args(arguments)
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
