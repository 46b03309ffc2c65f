"""Converts vectors to messages of the robot's own topics and back, by the attribute paths that the robot declares."""

from __future__ import annotations

import array
import importlib
import math
import operator
import struct
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time

from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.robots.world import Channel, CommandTopic

Reading = tuple[Floats, int | None]  # a vector, and its stamp where the message has one


def stamp_of(ns: int) -> Time:
    """Nanoseconds as a stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def nanoseconds(stamp: Time) -> int:
    """A stamp as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def serialized_stamp(data: bytes) -> int:
    """The stamp in a serialized message that begins with a header, as nanoseconds. Raises ValueError if it is cut."""
    if len(data) < 12:
        raise ValueError(f"a message of {len(data)} bytes has no header")
    seconds, rest = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(rest)


def message_class(name: str) -> Any:
    """The class of 'package/msg/Type'. Raises ValueError naming it if it is not installed."""
    package, _, kind = name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        raise ValueError(f"message type '{name}' is not installed") from None


class ChannelCodec:
    """Vectors <-> messages of one native input."""

    def __init__(self, channel: Channel) -> None:
        """Raises ValueError if the message type is not installed or lacks a field."""
        self.channel = channel
        self.type = message_class(channel.type)
        self._message = self.type()
        self.stamped = hasattr(self._message, "header")
        self._arrays = any(path.endswith("[]") for path in channel.fields)
        paths = [path.removesuffix("[]") for path in channel.fields]
        # Of an array that may have any length, None.
        lengths = [(channel.each or None) if path.endswith("[]") else 1 for path in channel.fields]
        self._joints = Joints(channel) if channel.joints else None
        self._expected = list(zip(paths, lengths, strict=True))
        self._get = operator.attrgetter(*paths)
        self._constants = [(path, operator.attrgetter(path), value) for path, value in channel.constants.items()]
        self._bounds = [(path, operator.attrgetter(path), *bound) for path, bound in channel.bounds.items()]
        try:
            self._get(self._message)
            self._set = _setters(self._message, channel.fields)
            for path, value in channel.constants.items():
                assign(self._message, path, list(value) if isinstance(value, tuple) else value)
            if channel.joints:
                assign(self._message, "name", list(channel.joints))
        except AttributeError as error:
            raise ValueError(f"channel {channel.name}: {channel.type}: {error}") from None

    def read(self, message: Any) -> Reading:
        """The vector and its stamp. Raises ValueError as `decode` does."""
        return self.decode(message), nanoseconds(message.header.stamp) if self.stamped else None

    def decode(self, message: Any) -> Floats:
        """The vector.

        Raises ValueError if a constant or the length of an array differs, as in another robot's message, if something
        is beyond its bound, or if a joint is missing or named twice.
        """
        for path, get, wanted in self._constants:
            found = get(message)
            if not _same(found, wanted):
                problem = f"{self.channel.name}: {path} is {_short(found)}, expected {_short(wanted)}"
                raise ValueError(problem + self._remedy(path, wanted))
        for path, get, most, meaning in self._bounds:
            if abs(get(message)) > most:
                raise ValueError(f"{self.channel.name}: {path} is {get(message):.3g}, beyond {most:g}: {meaning}")
        if self._joints is not None:
            return self._joints.values(message)
        values = self._get(message)
        if not self._arrays:
            return np.array(values if isinstance(values, tuple) else (values,), np.float64)
        values = values if isinstance(values, tuple) else (values,)
        parts = [np.atleast_1d(np.asarray(value, np.float64)) for value in values]
        # Check every array: if one is too short and another too long, their sum may still be right.
        for part, (path, length) in zip(parts, self._expected, strict=True):
            if length is not None and part.size != length:
                raise ValueError(f"{self.channel.name}: {path} has length {part.size}, expected {length}")
        return np.concatenate(parts)

    def _remedy(self, path: str, wanted: Any) -> str:
        """What to do about a frame of another name: no message says whether it is another place, too."""
        if not path.endswith("frame_id"):
            return ""
        if self.channel.latched:  # somebody's wish, as from RViz, and no sensor's
            return f"; the task node does where tf2 knows both, else transform it to {_short(wanted)} before it is sent"
        setting = self.channel.settings.get(path, "its frame")
        return f"; if that is its name, set {setting} in the robot's configuration"

    def encode(self, vector: Floats, stamp_ns: int) -> Any:
        """The message; the same object at every call, because publishing copies it."""
        if self.stamped:
            self._message.header.stamp = stamp_of(stamp_ns)
        _write(self._set, vector, self.channel.each or len(vector) - self.channel.size)
        return self._message


def admitted(robot: Robot, codec: ChannelCodec, message: Any) -> tuple[Floats, int | None, float]:
    """(vector, its stamp, how long after that it was measured [s]) of a message that a gate of `robot` would take.

    Raises ValueError as a gate refuses: what it does not know must count for nobody.
    """
    vector, stamp_ns = codec.read(message)
    if codec.channel.finite and not np.isfinite(vector).all():
        raise ValueError(f"{codec.channel.name}: holds a NaN or infinity")
    return vector, stamp_ns, robot.admit(codec.channel.name, vector)


class Joints:
    """The joints of a channel in a JointState of any robot: found by name, in any order, among any others."""

    def __init__(self, channel: Channel) -> None:
        """Raises ValueError if a field is none of a JointState's arrays."""
        self._topic, self._joints = channel.name, channel.joints
        self._paths = [path.removesuffix("[]") for path in channel.fields]
        if not all(path.endswith("[]") for path in channel.fields):
            raise ValueError(f"channel {channel.name}: with joints, every field must be an array")
        self._names: list[str] | None = None  # of the newest message: a driver names its joints in one order
        self._places: list[int] = []

    def values(self, message: Any) -> Floats:
        """Each field's values of our joints. Raises ValueError naming the joint that is missing or has no number."""
        names = list(message.name)
        if names != self._names:
            self._places, self._names = [self._place(joint, names) for joint in self._joints], names
        parts = []
        for path in self._paths:
            found = np.asarray(getattr(message, path), np.float64)
            if found.size > len(names) or found.size <= max(self._places):
                raise ValueError(f"{self._topic}: {path} has length {found.size}, but name has {len(names)}")
            parts.append(found[self._places])
            for joint, value in zip(self._joints, parts[-1].tolist(), strict=True):
                if not math.isfinite(value):
                    raise ValueError(f"{self._topic}: holds a NaN or infinity: {path} of joint '{joint}' is {value}")
        return np.concatenate(parts)

    def _place(self, joint: str, names: list[str]) -> int:
        if names.count(joint) > 1:
            raise ValueError(f"{self._topic}: joint '{joint}' is named {names.count(joint)} times")
        if joint not in names:
            held = ", ".join(names) or "none"
            raise ValueError(f"{self._topic}: joint '{joint}' is missing, it holds {held}")
        return names.index(joint)


class CommandCodec:
    """Actions <-> the native command."""

    def __init__(self, command: CommandTopic, stamped: bool) -> None:
        """`stamped` false: the type without a header, if there is one. Raises ValueError as ChannelCodec does."""
        plain = not stamped and bool(command.unstamped_type)
        kind, fields = (command.unstamped_type, command.unstamped_fields) if plain else (command.type, command.fields)
        self.type = message_class(kind)
        self._name = command.name
        self._message = self.type()
        self._header = hasattr(self._message, "header")
        try:
            self._get = operator.attrgetter(*(path.removesuffix("[]") for path in fields))
            self._get(self._message)
            self._set = _setters(self._message, fields)
            if self._header:
                self._message.header.frame_id = command.frame_id
        except AttributeError as error:
            raise ValueError(f"command {command.name}: {kind}: {error}") from None

    def encode(self, action: Singles, stamp_ns: int) -> Any:
        """The message that commands `action`, with the stamp of the state it answers."""
        if self._header:
            self._message.header.stamp = stamp_of(stamp_ns)
        _write(self._set, action.astype(np.float64), len(action))
        return self._message

    def decode(self, message: Any) -> Floats:
        """The commanded action. Raises ValueError if it holds a NaN or infinity."""
        values = self._get(message)
        parts = values if isinstance(values, tuple) else (values,)
        action = np.concatenate([np.atleast_1d(np.asarray(part, np.float64)) for part in parts])
        if not np.isfinite(action).all():
            raise ValueError(f"{self._name}: holds a NaN or infinity")
        return action


def _setters(message: Any, fields: tuple[str, ...]) -> list[tuple[Any, str, str]]:
    """For every path: the object that holds the attribute, its name, and the array code ('' for a number)."""
    setters: list[tuple[Any, str, str]] = []
    for path in fields:
        parent, _, name = path.removesuffix("[]").rpartition(".")
        owner = operator.attrgetter(parent)(message) if parent else message
        value = getattr(owner, name)
        code = (value.typecode if isinstance(value, array.array) else "d") if path.endswith("[]") else ""
        setters.append((owner, name, code))
    return setters


def _write(setters: list[tuple[Any, str, str]], vector: Floats, length: int) -> None:
    at = 0
    for owner, name, code in setters:
        if code:
            setattr(owner, name, array.array(code, vector[at : at + length].astype(code).tobytes()))
            at += length
        else:
            setattr(owner, name, float(vector[at]))
            at += 1


def assign(message: Any, path: str, value: object) -> None:
    """Set the attribute at `path` ('header.frame_id')."""
    parent, _, name = path.rpartition(".")
    setattr(operator.attrgetter(parent)(message) if parent else message, name, value)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return isinstance(found, float | int) and math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(wanted, list | tuple):
        return list(found) == list(wanted)
    return bool(found == wanted)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
