"""The crawl of the doctor beside a stand-in in a thread: what it measures, and when it does not drive or ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor

from safe_support_ql import bringup, config
from safe_support_ql.nodes.crawl import WAY, Crawl
from safe_support_ql.nodes.doctor import OK, WRONG, Doctor, Finding
from safe_support_ql.nodes.stand_in import StandIn
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.drivers import DRIVERS

Crawled = Callable[..., tuple[list[Finding], StandIn]]


@pytest.fixture
def bases() -> list[StandIn]:
    """Those that were crawled with."""
    return []


@pytest.fixture
def crawled(ros_domain: Any, tmp_path: Path, bases: list[StandIn]) -> Iterator[Crawled]:
    """Crawl with this profile beside a base that is `x` off the middle of an empty room; findings, and the base."""
    rclpy.init()
    before = {number: signal.getsignal(number) for number in bringup.stop_signals()}
    nodes: list[Any] = []
    executor = SingleThreadedExecutor()

    def crawl(
        profile: str | None = None,
        x: float = 0.0,
        until: Callable[[Crawl], None] = lambda crawl: None,
        told: dict[str, Any] | None = None,
        **differs: float,
    ) -> tuple[list[Finding], StandIn]:
        path = config.profile(profile) if profile else config.default_path("diff_drive")
        settings = config.load(path)
        base = StandIn(settings.robot, 3, differs, True, DRIVERS.get(profile or ""))
        base.sim.world.set_arena(Arena(np.zeros((0, 5)), 2.0, np.array([x, 0.0, 0.0]), np.zeros(2)))
        base.start()
        executor.add_node(base)
        doctor = Doctor(config.load(path, told), True, tmp_path)
        nodes.extend((doctor, base))
        bases.append(base)
        threading.Thread(target=executor.spin, daemon=True).start()
        end = time.monotonic() + 30.0
        while any(len(doctor.heard[name].arrived) < 4 for name in ("odom", "scan")):
            assert time.monotonic() < end
            rclpy.spin_once(doctor, timeout_sec=0.05)
        assert not doctor.count_publishers("cmd_vel")
        subject = Crawl(doctor, True)
        until(subject)
        try:
            found = subject.measure()
        finally:
            end = time.monotonic() + 5.0
            while abs(base.sim.world.truth()[3]) > 0.01 and time.monotonic() < end:
                time.sleep(0.05)
        return found, base

    yield crawl
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    for number, handler in before.items():
        signal.signal(number, handler)
    rclpy.shutdown()


def stands(base: StandIn, x: float = 0.0) -> bool:
    """Whether it stands, no farther from where it was put than it may drive."""
    truth = base.sim.world.truth()
    return bool(abs(truth[3]) < 0.01 and abs(truth[0] - x) < WAY + 0.05)


def named(found: list[Finding], text: str) -> Finding:
    (finding,) = [one for one in found if text in one.what]
    return finding


def test_a_drive_as_configured_is_measured_and_stands_in_the_end(crawled: Crawled) -> None:
    found, base = crawled()
    assert [one.level for one in found] == [OK] * 5, found
    assert found[0].what == "lidar 'scan' sees it drive ahead"
    assert stands(base) and base.sim.world.truth()[0] > 0.1 and base.summary()["unsafe_visits"] == 0


@pytest.mark.parametrize(("yaw", "seen", "remedy"), [(3.1416, "behind", 0.0), (-1.57, "degrees to the right", 0.0)])
def test_a_lidar_that_is_mounted_otherwise_is_found_by_driving(
    yaw: float, seen: str, remedy: float, crawled: Crawled
) -> None:
    """The base's lidar looks ahead; whoever wrote the configuration thought otherwise."""
    found, base = crawled(told={"parameters.lidars": [{"yaw": yaw}]})
    finding = named(found, "lidar 'scan' sees it drive")
    assert finding.level == WRONG and seen in finding.what, finding
    assert abs(float(finding.remedy.split("about ")[1].split()[0]) - remedy) < 0.3
    assert stands(base)


def test_a_slow_drive_is_named_with_the_setting(crawled: Crawled) -> None:
    found, base = crawled(lag=0.45)
    assert named(found, "lag with its delay").level == WRONG and "set lag: 0." in named(found, "lag with").remedy
    assert stands(base)


def test_a_drive_that_never_stops_by_itself_is_found_and_stopped(crawled: Crawled) -> None:
    """As a TurtleBot3, whose firmware only watches whether its node lives."""
    found, base = crawled("turtlebot3_burger")
    finding = named(found, "after its last command, as if for ever")
    assert finding.level == WRONG and "sends zero" in finding.remedy and stands(base)


@pytest.mark.parametrize(("x", "why"), [(1.55, "m from it ahead, must be"), (0.0, "of the rays ahead return anything")])
def test_it_does_not_drive_where_something_is_near_or_nothing_is_seen(x: float, why: str, crawled: Crawled) -> None:
    def blind(crawl: Crawl) -> None:
        heard = crawl.doctor.heard["scan"]
        assert heard.vector is not None
        if not x:
            heard.vector[7:] = np.inf

    (finding,), base = crawled(x=x, until=blind)
    assert finding.level == WRONG and finding.what.startswith("it did not drive") and why in finding.what
    assert abs(base.sim.world.truth()[0] - x) < 1e-3 and not base.count_publishers("cmd_vel")


def test_another_who_commands_ends_it(crawled: Crawled) -> None:
    def join(crawl: Crawl) -> None:
        crawl.doctor.create_publisher(TwistStamped, "cmd_vel", 1)  # as that of any other node
        crawl.doctor.publisher_watch.strangers = lambda: ["/teleop"]  # type: ignore[method-assign]

    (finding,), base = crawled(until=join)
    assert finding.what == "it stopped: /teleop publishes the command as well" and stands(base)


def test_scans_that_are_refused_show_nothing_and_end_it(crawled: Crawled) -> None:
    def spoil(crawl: Crawl) -> None:
        (codec,) = [one for one in crawl.doctor.codecs if one.channel.name == "scan"]
        crawl.doctor.on_message(codec, codec.type())

    (finding,), base = crawled(until=spoil)
    assert finding.what.startswith("it stopped: what is refused shows nothing: scan") and stands(base)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_base_that_was_told_to_stop(number: int, crawled: Crawled, bases: list[StandIn]) -> None:
    def press(crawl: Crawl) -> None:
        look = crawl._look

        def and_press() -> None:
            look()
            if crawl.seen and crawl.seen[-1][1] > 0.03:
                signal.raise_signal(number)

        crawl._look = and_press  # type: ignore[method-assign]

    with pytest.raises(KeyboardInterrupt):
        crawled("turtlebot3_burger", until=press)
    assert stands(bases[0]) and bases[0].sim.world.truth()[0] > 1e-3
