"""The display of a run: panel on a terminal, lines of text elsewhere, final table. A changed panel line goes here."""

import sys
import termios
import textwrap
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safe_support_ql.recording.bounds import proportion_interval
from safe_support_ql.recording.files import LEDGER, shown
from safe_support_ql.recording.ledger import PHASES, TRUTH
from safe_support_ql.recording.summary import Counts, Tail

LEDGER_S = 0.25
RATES = 12  # number of `counters` events for the rate, about one per second
LENGTH = 100.0  # assumed ticks of an episode before the first one has ended
LINE_S = 10.0
REDRAW_S = 0.5
WIDTH = 80
TITLES = {
    "collection": "collecting with the behavior policy",
    "extraction": "extracting the policy from Q",
    "evaluation_behavior": "evaluating the behavior policy on held-out arenas",
    "evaluation_policy": "evaluating the extracted policy on held-out arenas",
    "simulate": "driving in real time",
}


@dataclass
class Status:
    """All that is shown. The conductor updates it; its numbers come from the ledger and learner/status."""

    robot: str = ""
    domain: str = ""
    phase: str = "starting"
    note: str = ""
    done: float = 0.0
    total: float = 0.0  # 0: endless
    unit: str = "ticks"
    control_ticks: int = 0
    ticks_per_s: float = 0.0
    unsafe_visits: int = 0
    interventions: int = 0
    decisions: int = 0
    verdicts: dict[str, float] = field(default_factory=dict)
    empty_share: float = 0.0
    learner: dict[str, str] = field(default_factory=dict)  # the values of learner/status
    left_s: float | None = None
    messages: list[str] = field(default_factory=list)  # newest last


class LedgerView:
    """Fills in `status` from the ledger in a folder."""

    def __init__(self, folder: Path, status: Status, ticks: int = 0, episodes: int = 0) -> None:
        """Read the ledger so far. `ticks` of collection and `episodes` per policy: the goal of a training, else 0."""
        self.counts = Counts()
        self._status, self._ticks, self._episodes = status, ticks, episodes
        self._tail = Tail(folder / LEDGER)
        self.counts.add(self._tail.read())
        self._read_at = 0.0
        self._before, self._at_start = 0, 0.0
        self._rate: deque[tuple[float, float]] = deque(maxlen=RATES)

    def begin(self, phase: str, before: int = 0) -> None:
        """Begin a phase, of which `before` episodes are already done."""
        self._status.phase = phase
        self._before, self._at_start = before, self.counts.of(phase, "episodes")
        self._rate.clear()

    def refresh(self) -> None:
        """Read new lines of the ledger into the status."""
        if time.monotonic() - self._read_at <= LEDGER_S:
            return
        self._read_at = time.monotonic()
        status, counts = self._status, self.counts
        new = self._tail.read()
        if not new:
            return
        counts.add(new)
        for name in ("control_ticks", "unsafe_visits", "interventions", "decisions"):
            setattr(status, name, int(counts.total(name)))
        status.verdicts, status.empty_share = counts.verdicts(), counts.empty_share()
        stamps = [event["time"] for event in new if event["event"] == "counters"]
        if stamps:
            self._rate.append((stamps[-1], status.control_ticks))
            (t0, n0), (t1, n1) = self._rate[0], self._rate[-1]
            status.ticks_per_s = (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
        self._estimate()

    def _estimate(self) -> None:
        """The progress of this phase, and an estimate of the time left for the whole run."""
        status, counts = self._status, self.counts
        if status.phase == "collection":
            status.done = counts.of("collection", "control_ticks")
        elif status.phase in PHASES:
            status.done = self._before + (counts.of(status.phase, "episodes") - self._at_start)
        if not status.ticks_per_s or not self._ticks:
            return
        played = counts.total("episodes")
        length = counts.total("control_ticks") / played if played else LENGTH
        ticks = max(0.0, self._ticks - counts.of("collection", "control_ticks"))
        episodes = 2.0 * self._episodes
        if status.phase == "evaluation_behavior":
            episodes -= status.done
        elif status.phase == "evaluation_policy":
            episodes = episodes / 2 - status.done
        status.left_s = (ticks + max(0.0, episodes) * length) / status.ticks_per_s


class Lines:
    """Plain text every ten seconds, and at once when the phase changes."""

    def __init__(self, write: Any = print) -> None:
        """`write` takes one line."""
        self._write = write
        self._at = -LINE_S
        self._phase = ""

    def show(self, status: Status) -> None:
        """Draw the status, if it is time to."""
        now = time.monotonic()
        if status.phase != self._phase or now - self._at >= LINE_S:
            self._phase, self._at = status.phase, now
            self._write(textwrap.fill(line(status), WIDTH, subsequent_indent="  "))

    def say(self, text: str) -> None:
        """Print a line that stays visible."""
        self._write(text)

    def close(self) -> None:
        """Restore the terminal."""


class Panel:
    """A live panel with rich."""

    def __init__(self) -> None:
        """Start to draw on the terminal's last lines."""
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._terminal = _without_echo_of_control_keys()
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()
        self._at = 0.0

    def show(self, status: Status) -> None:
        now = time.monotonic()
        if now - self._at >= REDRAW_S:
            self._at = now
            self._live.update(draw(status, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._terminal)
            self._terminal = None


def _without_echo_of_control_keys() -> Any:
    """Hide the '^C' of the terminal, which would break the panel's last line. Returns the settings to restore."""
    try:
        before = termios.tcgetattr(sys.stdin)
        now = termios.tcgetattr(sys.stdin)
        now[3] &= ~termios.ECHOCTL
        termios.tcsetattr(sys.stdin, termios.TCSANOW, now)
        return before
    except (termios.error, ValueError, OSError):
        return None  # input is not a terminal


Screen = Lines | Panel


def make(terminal: bool) -> Screen:
    """The panel on a terminal, lines elsewhere."""
    return Panel() if terminal else Lines(lambda text: print(text, flush=True))


def line(status: Status) -> str:
    """The status as plain text."""
    parts = [status.phase + (f" ({status.note})" if status.note else "")]
    if status.total:
        parts.append(f"{status.done:.0f}/{status.total:.0f} {status.unit}")
    parts += [f"{status.control_ticks} control ticks", f"{status.ticks_per_s:.0f}/s"]
    parts.append(f"unsafe visits {status.unsafe_visits}")
    parts.append(f"interventions {status.interventions}")
    parts += [f"{name} {share:.1%}" for name, share in status.verdicts.items()]
    parts.append(f"empty supports {status.empty_share:.2%}")
    parts += [f"{name} {value}" for name, value in learning(status.learner)]
    parts.append(f"time left {duration(status.left_s)}")
    return ", ".join(parts)


def learning(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, text) of the learner's state and metrics."""
    shown = [("learner", values.get("state", "-"))]
    for key, name in (("q_loss", "Q loss"), ("alpha", "alpha"), ("kl", "KL"), ("effective_sample_share", "ESS share")):
        try:
            shown.append((name, f"{float(values[key]):.3g}"))
        except (KeyError, ValueError):
            shown.append((name, "-"))
    shown.append(("updates", f"{float(values.get('updates', 0) or 0):.0f}"))
    return shown


def duration(seconds: float | None) -> str:
    """'3:07', '1:02:03', or '-' if unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def draw(status: Status, width: int = WIDTH) -> Any:
    """The panel, readable at 80 columns."""
    from rich.panel import Panel as Box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=16, style="dim")
    grid.add_column(ratio=1)

    title = TITLES.get(status.phase, status.phase)
    grid.add_row("phase", Text(title + (f": {status.note}" if status.note else ""), style="bold", overflow="ellipsis"))
    if status.total:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(status.total, min(status.done, status.total), width=30),
            f"{status.done:.0f} of {status.total:.0f} {status.unit}",
        )
        grid.add_row("", bar)
    grid.add_row("control ticks", f"{status.control_ticks}   at {status.ticks_per_s:.0f}/s")
    style = "bold red" if status.unsafe_visits else "green"
    grid.add_row("unsafe visits", Text(str(status.unsafe_visits), style=style))
    share = status.interventions / max(1, status.decisions)
    grid.add_row("interventions", f"{status.interventions}   {share:.2%} of decisions")
    shares = [f"{name} {value:.1%}" for name, value in status.verdicts.items()]
    grid.add_row("verdicts", "  ".join(shares[:2]))
    grid.add_row("", "  ".join(shares[2:]))
    grid.add_row("empty supports", f"{status.empty_share:.2%}")
    values = learning(status.learner)
    (_, state), (_, updates) = values[0], values[-1]
    grid.add_row("learner", f"{state}, {updates} updates")
    grid.add_row("", "  ".join(f"{name} {value}" for name, value in values[1:-1]))
    grid.add_row("time left", duration(status.left_s))
    for text in status.messages[-3:]:
        grid.add_row("!", Text(text, style="yellow"))
    return Box(grid, title=f"{status.robot}", subtitle=f"ROS_DOMAIN_ID={status.domain}", width=min(width, WIDTH))


def table(summary: Mapping[str, Any]) -> str:
    """The table of the evaluation, in plain text of at most 80 columns."""
    rows = [("policy", "episodes", "success  [95 % interval]", "return", "unsafe", "interv.")]
    titles = {
        "behavior": "behavior policy",
        "policy": "extracted policy",
        "reference": "reference (map)",
        "driven": "this policy",
    }
    for name, row in summary["evaluation"].items():
        n = int(row["episodes"])
        low, high = row.get("success_interval95") or proportion_interval(round(row["success_rate"] * n), n)
        rate = row.get("intervention_rate")
        rows.append((
            titles.get(name, name), str(n), f"{row['success_rate']:.3f}  [{low:.3f}, {high:.3f}]",
            f"{row['mean_return']:.2f}", str(row["unsafe_visits"]), "-" if rate is None else f"{rate:.2%}",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    texts = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        for i in (0, 2):
            cells[i] = row[i].ljust(widths[i])
        texts.append("  ".join(cells))
    texts.insert(1, "-" * len(texts[0]))
    return "\n".join(text.rstrip() for text in texts)


def closing(summary: Mapping[str, Any], folder: Path) -> str:
    """The text below the panel when a run is over."""
    bound = summary["unsafe_rate_upper95_per_hour"]
    rate = "unknown" if bound is None else f"{bound:.2g}"
    rate_of_ticks = f"{summary['ticks_per_s']:.0f}/s while collecting, " if summary["ticks_per_s"] else ""
    verdicts = ", ".join(f"{name} {share:.1%}" for name, share in summary["verdicts"].items())
    hour = "simulated hour" if summary["judged_by"] == TRUTH else "hour"
    lines = [
        f"{summary['robot']}, seed {summary['seed']}: {summary['control_ticks']} control ticks, {rate_of_ticks}"
        f"{duration(summary['wall_s'])} in all",
        f"unsafe visits by {summary['judged_by']}: {summary['unsafe_visits']}   (rate below {rate} per {hour} at 95 %, "
        f"{summary['simulated_hours']:.2f} h)",
        f"interventions: {summary['interventions']}   empty supports: {summary['empty_support_fraction']:.2%}",
        f"verdicts: {verdicts}",
    ]
    if summary["evaluation"]:
        lines += ["", table(summary)]
    lines += ["", f"everything is in {shown(folder)}"]
    if head := summary.get("ledger_head"):  # whoever keeps it can prove the ledger: safe-support-ql ledger --head
        lines.append(f"ledger head: {head}")
    return "\n".join(lines)
