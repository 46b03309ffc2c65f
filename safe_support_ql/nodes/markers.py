"""The geometry of safety/picture.py as markers for RViz."""

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from safe_support_ql.nodes.native import stamp_of
from safe_support_ql.robots.base import Floats
from safe_support_ql.safety.picture import Picture

GREEN, ORANGE, RED, BLUE, WHITE = (
    ColorRGBA(r=r, g=g, b=b, a=1.0)
    for r, g, b in ((0.2, 0.8, 0.2), (1.0, 0.6, 0.0), (0.8, 0.1, 0.1), (0.2, 0.5, 1.0), (1.0, 1.0, 1.0))
)


def encode_markers(picture: Picture, frame_id: str, stamp_ns: int, state: str) -> MarkerArray:
    """Occupied points, candidates (certified green, in the band orange, refused red), plan (blue), margins as text."""

    def marker(name: str, kind: int, places: Floats, colour: ColorRGBA, scale: float) -> Marker:
        made = Marker(ns=name, type=kind, action=Marker.ADD, color=colour)
        made.header.frame_id, made.header.stamp = frame_id, stamp_of(stamp_ns)
        made.pose.orientation.w = 1.0
        made.scale.x = made.scale.y = made.scale.z = scale
        made.points = [Point(x=x, y=y, z=z) for x, y, z in places.tolist()]
        if not made.points and kind != Marker.TEXT_VIEW_FACING:
            made.action = Marker.DELETE
        return made

    groups = (
        ("certified", GREEN, picture.certified & ~picture.band),
        ("certified_band", ORANGE, picture.band),
        ("refused", RED, ~picture.certified),
    )
    markers = [marker("occupied", Marker.POINTS, picture.occupied, WHITE, 0.03)]
    for name, colour, chosen in groups:
        ends = picture.after[chosen]
        lines = np.stack([np.broadcast_to(picture.now, ends.shape), ends], axis=1).reshape(-1, 3)
        markers.append(marker(name, Marker.LINE_LIST, lines, colour, 0.005))
    markers.append(marker("backup", Marker.LINE_STRIP, picture.backup, BLUE, 0.02))
    text = marker("margins", Marker.TEXT_VIEW_FACING, np.zeros((0, 3)), WHITE, 0.12)
    text.text = "\n".join(
        [state]
        + [
            f"{name} {value:.3f} (tightened by {picture.tightening[name][0]:.3f} to {picture.tightening[name][1]:.3f})"
            for name, value in picture.margins.items()
        ]
    )
    text.pose.position = Point(x=float(picture.now[0]), y=float(picture.now[1]), z=float(picture.now[2]) + 0.6)
    return MarkerArray(markers=[*markers, text])
