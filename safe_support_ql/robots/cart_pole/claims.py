"""What the cart-pole claims: error bounds, worlds, calibration, search, kernel; the types are in robots/claims.py."""

from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql.robots.cart_pole.adversary import adversary
from safe_support_ql.robots.cart_pole.margins import MARGINS
from safe_support_ql.robots.cart_pole.model import bounds
from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.claims import CalibrationSpec, Claims, Ensemble, KernelSpec, Search
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import JointDrive


def claims(robot: CartPole) -> Claims:
    p, drive = robot.parameters, robot.world.drive
    assert isinstance(drive, JointDrive)
    return Claims(
        errors={"joint_states": bounds(p)[0]},
        mismatches={
            "cart_heavy": {"link_masses": {"slider_to_cart": 1.18 * p.cart_mass}},
            "pole_heavy": {"link_masses": {"cart_to_pole": 1.18 * p.pole_mass}},
            "pole_short": {
                "urdf_edits": (("0.05 0.05 1.0", "0.05 0.05 0.82"), ("0 0 0.5", "0 0 0.41")),
                "link_masses": {"cart_to_pole": 0.82 * p.pole_mass},
            },
            "force_weak": {"gain": 0.82},
            "damping_high": {"damping": 1.18 * p.damping},
        },
        drawn=lambda rng: {
            "link_masses": {
                "slider_to_cart": rng.uniform(0.82, 1.18) * p.cart_mass,
                "cart_to_pole": rng.uniform(0.82, 1.18) * p.pole_mass,
            },
            "gain": rng.uniform(0.82, 1.18),
            "damping": rng.uniform(0.82, 1.18) * p.damping,
        },
        beyond={
            "load": replace(robot.world, drive=replace(drive, link_masses={"slider_to_cart": 2.0 * p.cart_mass})),
            "force_lost": replace(robot.world, drive=replace(drive, gain=0.5)),
            "track_sticky": replace(robot.world, drive=replace(drive, damping=1.0)),
        },
        margins=MARGINS,
        adversary=adversary(p),
        calibration=CALIBRATION,
        # `drift` has no effect here, but without it a seed would give other attacks.
        search=Search(numbers={"drift": 2}, remembers=True),
        kernel=KernelSpec(
            limits=np.array([p.position_limit, p.angle_limit]),
            rates=np.array([9.0, 6.0]),
            effort=p.force_limit,
            inputs=lambda z: {"joint_states": np.array(z), "goal_pose": np.zeros(1)},
            truths={
                "nominal": {},
                "heavy, weak": _scaled(p, drive.joints, 1.15, 0.85),
                "light, strong": _scaled(p, drive.joints, 0.85, 1.15),
            },
        ),
    )


def _scaled(p: Parameters, joints: tuple[str, ...], mass: float, gain: float) -> dict[str, Any]:
    """Fields of the drive with both masses times `mass` and the force per commanded force times `gain`."""
    masses = (mass * p.cart_mass, mass * p.pole_mass)
    return {"link_masses": dict(zip(joints, masses, strict=True)), "gain": gain}


def member(nominal: Floats, factors: Floats) -> Floats:
    """`nominal` [7] (see model.step) with factors (force per cart mass, pole mass, length); inertia follows."""
    authority, mass, length = factors
    return nominal * np.array([1.0, mass, length, mass * length**2, authority, 1.0, 1.0])


CALIBRATION = CalibrationSpec(
    growth=("position_disturbance", "angle_disturbance", "speed_disturbance", "turn_disturbance"),
    others=("position_error", "angle_error", "speed_error", "turn_error", "command_delay", "between_members"),
    errors={"position_error": 0, "angle_error": 1, "speed_error": 2, "turn_error": 3},
    speed=2,
    moving=0.05,
    ensemble=Ensemble(
        names=("force per cart mass", "pole per cart mass", "pole length"),
        mismatches=(("gain_mismatch", "mass_mismatch"), ("mass_mismatch", "mass_mismatch"), ("length_mismatch", "")),
        member=member,
        measured=(0, 1, 2, 3),
        angle=1,
        scale=("position_error", "angle_error", "speed_error", "turn_error"),
    ),
)
