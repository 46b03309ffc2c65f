"""The model of the cart-pole: dynamics as PyBullet integrates them, LQR backup policy, terminal set, tightening, W.

Safe set: |x| and |theta| within limits. Backup policy k: LQR about one of several rest positions (centres), clipped as
the actuator clips it. Terminal set S_f: an ellipsoid about the centre, invariant for every member of the ensemble.
State (x [m], theta [rad], x' [m/s], theta' [rad/s]), absolute; theta > 0 leans towards +x. Action: force on the cart
[N].
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov
from scipy.optimize import minimize

from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.model import Certificate, Detection, Dynamics, Floats, Model

GRAVITY = 9.81  # m/s^2, as in the simulator
PHYSICS_HZ = 250
CONTROL_HZ = 50


@register_jitable  # a plain function in Python, compiled where compiled code calls it
def accelerations(q: Any, v: Any, w: Any, force: Any, member: tuple[Any, ...]) -> tuple[Any, Any]:
    """(x'', theta'') of the cart-pole with Bullet's link damping; member as in `step`.

    Lagrange's equations; damping as in btMultiBody's articulated-body pass: force -d m v (1 + |v|) on each link's
    centre of mass and torque -d I w (1 + |w|), with d the damping. A test compares it with PyBullet.
    """
    cart, pole, length, inertia, gain, damping, _ = member
    s, c = np.sin(q), np.cos(q)
    along, up = v + length * c * w, -length * s * w  # velocity of the pole's centre of mass
    drag = pole * damping * (1.0 + np.sqrt(along * along + up * up))
    f = gain * force + pole * length * s * w * w - cart * damping * (1.0 + np.abs(v)) * v - drag * along
    torque = (
        pole * GRAVITY * length * s
        - drag * (along * length * c - up * length * s)
        - inertia * damping * (1.0 + np.abs(w)) * w
    )
    total, coupling, about = cart + pole, pole * length * c, inertia + pole * length * length
    determinant = total * about - coupling * coupling
    return (about * f - coupling * torque) / determinant, (total * torque - coupling * f) / determinant


def step(x: tuple[Any, ...], u: tuple[Any, ...], member: tuple[Any, ...], dt: float) -> tuple[Any, ...]:
    """The state after dt seconds under the constant force u, as PyBullet integrates it.

    member = (cart mass, pole mass, pole centre, pole inertia, gain, damping, physics step h). Bullet takes dt / h
    semi-implicit Euler steps of length h. This takes one midpoint step with the same moments (mean time, mean square
    and cubic time of those steps): equal to third order, with two force evaluations, and exact for dt = h. h = 0 is
    continuous time, as on hardware.
    """
    p, q, v, w = x
    h = member[6]
    a, b = accelerations(q, v, w, u[0], member)
    late = 0.5 * (dt - h)
    square = (dt * dt - h * h) / 6.0
    a2, b2 = accelerations(q + late * w + square * b, v + late * a, w + late * b, u[0], member)
    cubic = dt * (dt + h) / 6.0
    return p + dt * v + cubic * (2.0 * a2 + a), q + dt * w + cubic * (2.0 * b2 + b), v + dt * a2, w + dt * b2


def backup(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> tuple[Any, ...]:
    """LQR about rest at `centre`, clipped to the actuator's range; constants = (limits of x, theta, F, K[4], ...)."""
    force = -(constants[3] * (x[0] - centre[0]) + constants[4] * x[1] + constants[5] * x[2] + constants[6] * x[3])
    return (np.minimum(np.maximum(force, -constants[2]), constants[2]),)


def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """True margins (track [m], lean [rad])."""
    return constants[0] - np.abs(x[0]), constants[1] - np.abs(x[1])


def terminal(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> Any:
    """In {z' P z <= rho} about `centre`, shrunk near the track's end; constants[7:] = (P[10], rho, room, reach)."""
    _, _, _, _, _, _, _, p00, p01, p02, p03, p11, p12, p13, p22, p23, p33, rho, room, reach = constants
    p, q, v, w = x[0] - centre[0], x[1], x[2], x[3]
    value = (
        p00 * p * p + p11 * q * q + p22 * v * v + p33 * w * w
        + 2.0 * (p01 * p * q + p02 * p * v + p03 * p * w + p12 * q * v + p13 * q * w + p23 * v * w)
    )  # fmt: skip
    free = np.maximum(room - np.abs(centre[0]), 0.0) / reach
    return value <= np.minimum(rho, free * free)


def nominal(p: Parameters) -> Floats:
    """The nominal member [7], see `step`."""
    return np.array([p.cart_mass, p.pole_mass, p.pole_centre, p.pole_inertia, 1.0, p.damping, 1.0 / PHYSICS_HZ])


def _ensemble(p: Parameters) -> Floats:
    """The nominal member and four corners [5, 7].

    The corners combine both ends of the acceleration per command (gain / cart mass) and of the pole's length. The pole
    is heavy in all of them: that is worse, because it pushes the cart; a light pole adds nothing. That the corners
    stand for the whole box is measured, not proved: a test draws models from the box, and `between_members` covers
    what those lose.
    """
    rows = [nominal(p)]
    for weak, long in ((1, -1), (1, 1), (-1, -1), (-1, 1)):
        mass, length = 1.0 + p.mass_mismatch, 1.0 + long * p.length_mismatch
        scale = [1.0 + weak * p.mass_mismatch, mass, length, mass * length**2, 1.0 - weak * p.gain_mismatch, 1.0, 1.0]
        rows.append(rows[0] * np.array(scale))
    return np.array(rows)


def bounds(p: Parameters) -> tuple[Floats, Floats]:
    """(e_0[4], w_bar[4]) in the units of the state."""
    return (
        np.array([p.position_error, p.angle_error, p.speed_error, p.turn_error]),
        np.array([p.position_disturbance, p.angle_disturbance, p.speed_disturbance, p.turn_disturbance]),
    )


def _linear(member: Floats) -> tuple[Floats, Floats]:
    """A[4, 4], B[4] of one control period about rest, by central differences of `step`."""
    size = 1e-5

    def column(i: int) -> Floats:
        z, parameters = size * np.eye(5)[i], tuple(member)
        ahead, back = (np.array(step(tuple(s * z[:4]), (s * z[4],), parameters, 1 / CONTROL_HZ)) for s in (1, -1))
        return np.asarray((ahead - back) / (2 * size))

    return np.column_stack([column(i) for i in range(4)]), column(4)


def lqr(member: Floats, weights: Floats, force_weight: float) -> Floats:
    """K[4] of the discrete LQR, u = -K z; weights[4] in units of 1 / state^2."""
    a, b = _linear(member)
    cost = solve_discrete_are(a, b[:, None], np.diag(weights), np.array([[force_weight]]))
    return np.asarray((b @ cost @ a) / (force_weight + b @ cost @ b))


def _common_lyapunov(loops: list[Floats]) -> tuple[Floats, float]:
    """(P[4, 4], rate): ||A z||_P <= rate ||z||_P for every closed loop A, with the smallest rate that descent finds.

    The rate is quasi-convex in P, so descent on its softened maximum from the nominal solution is enough. The exact
    rate is computed at the end: a poor search makes S_f smaller, but never breaks its invariance.
    """
    start = solve_discrete_lyapunov(loops[0].T, np.eye(4))
    unit = np.sqrt(np.diag(start))  # states in these units make P well conditioned
    scaled = [unit[:, None] * loop / unit for loop in loops]
    lower = np.tril_indices(4)

    def root(x: Any) -> Floats:
        r = np.zeros((4, 4))
        r[lower] = x
        return r.T

    def rates(x: Any) -> Floats:
        r = root(x)
        inverse = np.linalg.pinv(r)
        return np.array([np.linalg.norm(r @ loop @ inverse, 2) for loop in scaled])

    def soft(x: Any, width: float) -> float:
        rate = rates(x)
        return float(rate.max() + width * np.log(np.exp((rate - rate.max()) / width).sum()))

    x = np.linalg.cholesky(start / unit / unit[:, None])[lower]
    for width in (0.02, 0.005, 0.001):
        x = minimize(soft, x, (width,), method="BFGS").x
    p = root(x) * unit
    return p.T @ p, float(rates(x).max())


def _tubes(p: Parameters, member: Floats, gain: Floats, ticks: int) -> Floats:
    """Bounds [ticks + 1, 2] of |error| in (x, theta) of a rollout against the true motion of the same `member`.

    During the candidate's own tick, and while k saturates, errors grow open loop (A), afterwards with A - B K. The
    bound is the largest over all numbers of open ticks up to saturated_ticks. It sums |C Phi| e_0 for the start,
    |C Phi| w_bar for each tick, and |C Phi B| |K| e_0 for each closed tick, because k acts on the measured state. It
    is taken entry by entry, which is tighter than a Lipschitz constant. Late commands are late_swings impulses of full
    swing at their worst moment.
    """
    a, b = _linear(member)
    e0, w = bounds(p)
    measured = float(np.abs(gain) @ e0)
    late = 2.0 * p.force_limit * p.command_delay * CONTROL_HZ
    opened = [np.linalg.matrix_power(a, t) for t in range(p.saturated_ticks + 1)]
    settled = [np.eye(4)]
    for _ in range(ticks):
        settled.append((a - np.outer(b, gain)) @ settled[-1])
    closed = np.array(settled)[:, :2]  # effect of an error on (x, theta) t closed ticks later
    steady = np.abs(closed) @ w + np.abs(closed @ b) * measured
    worst = np.zeros((ticks + 1, 2))
    for open_ticks in range(1, p.saturated_ticks + 1):
        bound, impulse = np.zeros((ticks + 1, 2)), np.zeros((ticks + 1, 2))
        for u in range(open_ticks + 1):  # an error that enters after tick u; u = 0 is the error of the start
            before = np.array(opened[: open_ticks - u + 1])[:, :2]
            after = closed[1 : ticks - open_ticks + 1] @ opened[open_ticks - u]
            path = np.concatenate([before, after])
            bound[u:] += np.abs(path) @ (w if u else e0)
            if u:
                impulse[u:] = np.maximum(impulse[u:], np.abs(path @ b) * late)
        bound[open_ticks + 1 :] += np.cumsum(steady, axis=0)[: ticks - open_ticks]
        swing = np.maximum.accumulate(np.abs(closed @ b) * late)[: ticks - open_ticks]
        impulse[open_ticks + 1 :] = np.maximum(impulse[open_ticks + 1 :], swing)
        worst = np.maximum(worst, bound + p.late_swings * impulse)
    return np.asarray(p.nonlinearity * np.maximum.accumulate(worst))


def build_model(p: Parameters) -> Model:
    """The model with parameters `p`. Raises ValueError naming the parameter if no certificate exists."""
    dt = 1.0 / CONTROL_HZ / p.checks_per_tick
    substeps = PHYSICS_HZ // CONTROL_HZ
    if substeps % p.checks_per_tick:
        raise ValueError(f"checks_per_tick is {p.checks_per_tick}, must divide {substeps} physics steps")
    members = _ensemble(p)
    weights = [p.backup_position_weight, p.backup_angle_weight, p.backup_speed_weight, p.backup_turn_weight]
    gain = lqr(members[0], np.array(weights), p.backup_force_weight)
    linear = [_linear(member) for member in members]
    lyapunov, rate = _common_lyapunov([a - np.outer(b, gain) for a, b in linear])
    if not rate < 1.0:
        raise ValueError("backup weights and mismatches leave no common Lyapunov function; choose smaller mismatches")

    ticks = int(np.ceil(p.horizon * CONTROL_HZ))
    if p.saturated_ticks > ticks:
        raise ValueError(f"saturated_ticks is {p.saturated_ticks}, must be at most the {ticks} ticks of the horizon")
    tube = np.max([_tubes(p, member, gain, ticks) for member in members], axis=0)
    limits = np.array([p.position_limit, p.angle_limit])
    e0, w = bounds(p)
    # Between two checks, a coordinate exceeds the larger of its values there by at most dt^2 / 8 of its acceleration.
    corner = (np.array(p.angle_limit), 0.0, 0.0, -p.force_limit)
    fastest = np.max([np.abs(accelerations(*corner, tuple(member))) for member in members], axis=0)
    margin = tube + dt**2 / 8 * fastest + p.between_members * limits

    # S_f: the largest {z' P z <= rho} in which |theta| stays inside its tightened limit, and |K z| of the measured
    # state inside the actuator's range. `terminal` handles |x|, which depends on the centre.
    spread = np.linalg.inv(lyapunov)
    lean = (p.angle_limit - margin[-1, 1]) / np.sqrt(spread[1, 1])
    effort = (p.force_limit - np.abs(gain) @ e0) / np.sqrt(gain @ spread @ gain)
    room = p.position_limit - margin[-1, 0]
    reach = float(np.sqrt(spread[0, 0]))
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 4), axis=-1).reshape(-1, 4)
    largest = np.sqrt(np.einsum("ni,ij,nj->n", signs * w, lyapunov, signs * w).max())
    radius = min(lean, effort)
    if min(radius, (room - p.centre_span) / reach) <= largest / (1.0 - rate):
        raise ValueError(
            f"no invariant terminal set about x = centre_span = {p.centre_span:g} m: margins leave {room:.3f} m "
            f"and {p.angle_limit - margin[-1, 1]:.3f} rad; choose smaller centre_span, errors or disturbances"
        )
    constants = (*limits, p.force_limit, *gain, *lyapunov[np.triu_indices(4)], radius**2, room, reach)

    checks = -(-np.arange(ticks * p.checks_per_tick + 1) // p.checks_per_tick)  # the tick that each check belongs to
    # Effect of an error of the state, or of one step, on (x, theta) at any later time: absolute values of Phi_t's rows.
    loop = linear[0][0] - np.outer(linear[0][1], gain)
    later = np.array([np.abs(np.linalg.matrix_power(loop, t)[:2]) for t in range(ticks)])
    # A prediction is off by both measurement errors and the disturbance; in an uneven tick, also by a late command.
    residual = np.max([np.abs(a) @ e0 for a, _ in linear], axis=0) + e0 + w
    late = np.max([np.abs(b) for _, b in linear], axis=0) * 2.0 * p.force_limit * p.command_delay * CONTROL_HZ
    centres = np.linspace(-p.centre_span, p.centre_span, p.centres) if p.centres > 1 else np.zeros(1)
    return Model(
        dynamics=Dynamics(step=step, members=members, dt=dt, checks_per_tick=p.checks_per_tick),
        certificate=Certificate(
            backup=backup,
            margins=margins,
            terminal=terminal,
            constants=tuple(float(value) for value in constants),
            centres=centres[:, None],
            margin_names=("track", "lean"),
            tightening=np.ascontiguousarray(margin[checks]),
            scale=limits,
            holds=(p.checks_per_tick,),  # zero effort does not stop it, so there is no drive timeout to certify
            offered_longer=p.offered_ticks * p.checks_per_tick,
            band=p.band,
            noise_allowance=float((later @ e0 / limits).max()),
            step_residual=float((later @ w / limits).max()),
            band_budget=p.band_budget,
        ),
        detection=Detection(residual=residual, slack=residual + late, uneven=0.01),
    )
