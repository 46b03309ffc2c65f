"""The figures of docs/certificate_*.md that are computed and not measured on PyBullet.

    python benchmarks/certificate.py

Half a minute on one core; first the cart-pole, then the base. It looks into robots/cart_pole/model.py for what the
model itself does not keep.
"""

from __future__ import annotations

import os
from itertools import product

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # after the thread limit

from safe_support_ql import config
from safe_support_ql.robots.cart_pole import model as cp
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.model import Floats
from safe_support_ql.safety.certificate import Certifier


def box() -> Floats:
    """The models [81, 7] at low, nominal and high of cart mass, pole mass, length and gain."""
    nominal = ROBOT.model.dynamics.members[0]
    mismatches = np.array([P.mass_mismatch, P.mass_mismatch, P.length_mismatch, P.gain_mismatch])
    rows = []
    for signs in product((-1, 0, 1), repeat=4):
        cart, pole, length, gain = 1.0 + mismatches * signs
        rows.append(nominal * np.array([cart, pole, length, pole * length**2, gain, 1.0, 1.0]))
    return np.array(rows)


def boundary(lyapunov: Floats, radius: float, count: int, rng: np.random.Generator) -> Floats:
    """States [count, 4] on the boundary of S_f, about its centre."""
    direction = rng.normal(size=(count, 4))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(np.linalg.solve(np.linalg.cholesky(lyapunov).T, radius * direction.T).T)


def norm(z: Floats, lyapunov: Floats) -> Floats:
    """||z||_P of each row."""
    return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", z, lyapunov, z)))


def terminal_set() -> None:
    """Section 3, and the second point of section 7."""
    linear = [cp._linear(member) for member in MODEL.dynamics.members]
    loops = [a - np.outer(b, GAIN) for a, b in linear]
    lyapunov, rate = cp._common_lyapunov(loops)
    outer = min(
        np.sqrt(MODEL.certificate.constants[-3]),
        (MODEL.certificate.constants[-2] - P.centre_span) / MODEL.certificate.constants[-1],
    )
    signs = np.array(list(product((-1, 1), repeat=4)))
    disturbed = norm(signs * W, lyapunov).max()
    measured = float(np.abs(GAIN) @ E0)
    pushed = max(norm(signs * W + s * measured * b, lyapunov).max() for _, b in linear for s in (-1, 1))
    print(f"rate of the common Lyapunov function: {rate:.3f} per tick")
    root = np.linalg.cholesky(lyapunov).T
    corners = [a - np.outer(b, GAIN) for a, b in map(cp._linear, box())]
    rates = [np.linalg.norm(root @ loop @ np.linalg.inv(root), 2) for loop in corners]
    print(f"  on the 81 combinations of low, nominal and high parameters: {max(rates):.3f}")
    radius = float(np.sqrt(MODEL.certificate.constants[-3]))
    asked = radius * float(np.sqrt(GAIN @ np.linalg.inv(lyapunov) @ GAIN))
    print(
        f"largest force in S_f: {asked:.1f} N of {P.force_limit:g} N, with measurement errors {asked + measured:.1f} N"
    )
    print(f"radius at the outermost centre: {outer:.2f}; needed for w_bar: {disturbed / (1 - rate):.2f}, "
          f"with e_0 in the loop: {pushed / (1 - rate):.2f}")  # fmt: skip
    rng = np.random.default_rng(0)
    z, after_all = boundary(lyapunov, outer, 4000, rng), []
    for member in MODEL.dynamics.members:
        errors, pushes = (rng.choice([-1, 1], z.shape) for _ in range(2))
        force = np.clip(-(z + errors * E0) @ GAIN, -P.force_limit, P.force_limit)
        after = np.array(MODEL.dynamics.step(tuple(z.T), (force,), tuple(member), TICK)).T + pushes * W
        after_all.append(norm(after, lyapunov) / outer)
    grown = np.array(after_all).max(axis=0)
    print(
        f"4000 states on its boundary, nonlinear, errors and disturbances at random signs: {(grown > 1.0).mean():.2%} "
        f"leave it, to {grown.max():.3f} of its radius at most"
    )


def tube() -> None:
    """The tightening, and the tube beyond the horizon."""
    ticks = int(np.ceil(P.horizon * cp.CONTROL_HZ))
    print("tightening at the horizon: {:.0f} mm, {:.0f} mrad".format(*(1e3 * MODEL.certificate.tightening[-1])))
    for n in (ticks, 4 * ticks):
        x, theta = 1e3 * np.max([cp._tubes(P, member, GAIN, n)[-1] for member in MODEL.dynamics.members], axis=0)
        print(f"tube after {n * TICK:g} s: {x:.1f} mm, {theta:.1f} mrad")
    corner = (np.array(P.angle_limit), 0.0, 0.0, -P.force_limit)
    fastest = np.max([np.abs(cp.accelerations(*corner, tuple(m))) for m in MODEL.dynamics.members], axis=0)
    x, theta = MODEL.dynamics.dt**2 / 8 * fastest
    print(f"between checks: {1e3 * x:.2f} mm, {1e3 * theta:.1f} mrad")
    beyond = np.max([np.abs(cp.accelerations(*corner, tuple(m))) for m in box()], axis=0) - fastest
    share = float((beyond / fastest).max())
    x, theta = 1e6 * MODEL.dynamics.dt**2 / 8 * beyond
    print(f"  the box accelerates by {share:.1%} more than the members: {x:.0f} micrometres, {theta:.0f} microradians")


def saturation() -> None:
    """For how many ticks in a row k saturates after a certified action."""
    certificate, rng = Certifier(MODEL, 4, 1), np.random.default_rng(0)
    past, points = np.zeros((1, 0, 1)), np.zeros((0, 2))
    runs: list[int] = []
    while len(runs) < 1500 * len(MODEL.dynamics.members):
        z = rng.uniform(-1.0, 1.0, 4) * [0.9, 0.18, 1.2, 1.2]
        actions = rng.uniform(-P.force_limit, P.force_limit, (4, 1))
        margin, centres = certificate(
            z, past, (0,), actions, points, len(MODEL.certificate.centres) // 2, MODEL.certificate.band
        )
        for i in np.flatnonzero(margin >= 0.0):
            centre = MODEL.certificate.centre(int(centres[i]))
            for member in MODEL.dynamics.members:
                x, u, row, longest = tuple(z), (actions[i, 0],), 0, 0
                for _ in range(len(MODEL.certificate.tightening)):
                    x = MODEL.dynamics.step(x, u, tuple(member), TICK)
                    u = MODEL.certificate.backup(x, centre, MODEL.certificate.constants)
                    row = row + 1 if abs(u[0]) >= P.force_limit - 1e-9 else 0
                    longest = max(longest, row)
                runs.append(longest)
    over = np.mean(np.array(runs) > P.saturated_ticks)
    print(f"1500 certified actions, all members: k saturates for up to {max(runs)} ticks in a row, "
          f"for more than {P.saturated_ticks} in {over:.2%}")  # fmt: skip


def falling() -> None:
    """What a lost state costs."""
    rates = [np.log(np.abs(np.linalg.eigvals(cp._linear(member)[0])).max()) / TICK for member in MODEL.dynamics.members]
    doubling = np.log(2.0) / np.array(rates)
    print(f"the lean doubles every {doubling[0]:.2f} s ({doubling.min():.2f} to {doubling.max():.2f} over the members)")
    x, ticks = (0.0, 0.03, 0.0, 0.0), 0
    while abs(x[1]) < P.angle_limit:
        x, ticks = MODEL.dynamics.step(x, (0.0,), tuple(MODEL.dynamics.members[0]), TICK), ticks + 1
    print(f"with no force from 0.03 rad at rest to the limit: {ticks * TICK:.2f} s")


def base() -> None:
    """diff_drive: what a base may still creep, and the tightening of its clearance."""
    robot = config.load_robot("diff_drive").robot
    assert isinstance(robot, DiffDrive)
    model, p = robot.model, robot.parameters
    ways = []
    for member in model.dynamics.members:
        x: tuple[Floats | float, ...] = (0.0, 0.0, 0.0, p.terminal_speed, 0.0)
        for _ in range(len(model.certificate.tightening)):
            x = model.dynamics.step(
                x, model.certificate.backup(x, (0.0,), model.certificate.constants), tuple(member), model.dynamics.dt
            )
        ways.append(float(np.hypot(x[0], x[1])))
    print(f"diff_drive creeps on from terminal_speed by {1e3 * max(ways):.1f} mm at most")
    for seconds in (0.0, 0.5, p.horizon):
        check = min(round(seconds / model.dynamics.dt), len(model.certificate.tightening) - 1)
        print(
            f"tightening of its clearance after {seconds:.1f} s: {1e3 * model.certificate.tightening[check, 0]:.1f} mm"
        )


ROBOT = config.load_robot("cart_pole").robot
assert isinstance(ROBOT, CartPole)
MODEL, P, TICK = ROBOT.model, ROBOT.parameters, 1.0 / cp.CONTROL_HZ
E0, W = cp.bounds(P)
GAIN = np.array(MODEL.certificate.constants[3:7])

if __name__ == "__main__":
    terminal_set()
    tube()
    saturation()
    falling()
    base()
