"""Joints follow what drives them, an effort or a velocity, and obey the robot's silence when nobody commands."""

import copy
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.world import JointDrive
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.joints import JointWorld
from safe_support_ql.simulation.world import World, make_world

TIMEOUT = 0.1  # s
HANGING = np.array([0.0, np.pi, 0.0, 0.0])  # (x, theta, x', theta') of the cart-pole, its pole downwards


def robot(drive: JointDrive, silence: float = 0.0) -> Robot:
    """The cart-pole on another drive."""
    changed = copy.copy(config.load_robot("cart_pole").robot)
    changed.world, changed.silence = replace(changed.world, drive=drive), np.array([silence])
    return changed


def slider(**settings: object) -> JointDrive:
    joints = ("slider_to_cart", "cart_to_pole")
    return JointDrive(urdf="cartpole.urdf", driven=joints[:1], joints=joints, timeout=TIMEOUT, **settings)  # type: ignore[arg-type]


@pytest.fixture
def by_velocity() -> Iterator[World]:
    world = make_world(robot(slider(control="velocity", max_force=200.0)))
    world.reset(np.random.default_rng(0), 0)
    world.set_state(HANGING)
    yield world
    world.close()


def hold(world: World, command: float, seconds: float) -> None:
    """Command again at every sub-step."""
    for _ in range(round(seconds / world.dt)):
        world.command(np.array([command]))
        world.step()


def rest(world: World, seconds: float) -> None:
    for _ in range(round(seconds / world.dt)):
        world.step()


def test_a_joint_follows_the_commanded_velocity(by_velocity: World) -> None:
    for wanted in (0.5, -0.3, 0.0):
        hold(by_velocity, wanted, 0.3)
        before = by_velocity.truth()
        assert before[2] == pytest.approx(wanted, abs=0.01)
        hold(by_velocity, wanted, 0.5)
        assert by_velocity.truth()[0] - before[0] == pytest.approx(0.5 * wanted, abs=0.01)


def test_it_stops_after_the_timeout_where_silence_is_zero_velocity(by_velocity: World) -> None:
    hold(by_velocity, 0.5, 0.3)
    rest(by_velocity, TIMEOUT - 3 * by_velocity.dt)
    assert by_velocity.truth()[2] == pytest.approx(0.5, abs=0.01)
    rest(by_velocity, 0.1)
    stopped = by_velocity.truth()
    assert stopped[2] == pytest.approx(0.0, abs=0.01)
    rest(by_velocity, 1.0)
    assert by_velocity.truth()[0] == pytest.approx(stopped[0], abs=0.01)


def test_silence_is_what_the_robot_declares() -> None:
    world = make_world(robot(slider(control="velocity", max_force=200.0), silence=0.2))
    world.reset(np.random.default_rng(0), 0)
    world.set_state(HANGING)
    rest(world, 0.3)
    assert world.truth()[2] == pytest.approx(0.2, abs=0.01)
    world.close()


def test_a_motor_is_no_stronger_than_declared() -> None:
    world = make_world(robot(slider(control="velocity", max_force=1.0)))
    world.reset(np.random.default_rng(0), 0)
    world.set_state(HANGING)
    hold(world, 5.0, 0.1)
    assert 0.0 < world.truth()[2] < 0.11  # 1 N on a cart of 1 kg and a pole that hangs on it
    world.close()


def test_a_velocity_may_come_short_by_its_gain() -> None:
    world = make_world(robot(slider(control="velocity", max_force=200.0, gain=0.5)))
    world.reset(np.random.default_rng(0), 0)
    world.set_state(HANGING)
    hold(world, 0.4, 0.3)
    assert world.truth()[2] == pytest.approx(0.2, abs=0.01)
    world.close()


def test_an_effort_accelerates_and_ends_with_the_timeout() -> None:
    world = make_world(robot(slider()))
    world.reset(np.random.default_rng(0), 0)
    world.set_state(HANGING)
    hold(world, 1.0, 0.1)
    pushed = world.truth()[2]
    assert 0.08 < pushed < 0.11
    rest(world, TIMEOUT)
    assert world.truth()[2] > 1.5 * pushed
    late = world.truth()[2]
    rest(world, 0.05)
    assert world.truth()[2] < late + 0.01
    world.close()


def test_a_world_without_a_map_takes_no_arena(by_velocity: World) -> None:
    assert by_velocity.map is None
    np.testing.assert_array_equal(by_velocity.quick_truth(0.3), by_velocity.truth())
    with pytest.raises(ValueError, match="cart_pole: its world has no map"):
        by_velocity.set_arena(Arena(np.zeros((0, 5)), 1.0, np.zeros(3), np.zeros(2)))


class OwnWorld(JointWorld):
    """What somebody else's package could bring."""


class OwnDrive(JointDrive):
    world = f"{__name__}:OwnWorld"


def test_a_drive_brings_its_own_world() -> None:
    shipped = slider()
    world = make_world(robot(OwnDrive(**{field.name: getattr(shipped, field.name) for field in fields(shipped)})))
    assert type(world).__name__ == "OwnWorld"
    world.close()


def test_a_world_that_there_is_not_is_named() -> None:
    drive = slider()
    object.__setattr__(drive, "world", "safe_support_ql.simulation.joints:NoWorld")
    with pytest.raises(ValueError, match="cart_pole: its drive names the world '.*:NoWorld', but .* no attribute"):
        make_world(robot(drive))
