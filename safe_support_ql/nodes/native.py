"""Converts vectors to messages of the robot's own topics and back, by the attribute paths that the robot declares."""

from __future__ import annotations

import array
import importlib
import math
import operator
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time

from safe_support_ql.robots.base import Floats, Singles
from safe_support_ql.robots.world import Channel, CommandTopic


def stamp_of(ns: int) -> Time:
    """Nanoseconds as a stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def nanoseconds(stamp: Time) -> int:
    """A stamp as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


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
        lengths = [channel.length if path.endswith("[]") else 1 for path in channel.fields]
        self._expected = list(zip(paths, lengths, strict=True))
        self._get = operator.attrgetter(*paths)
        self._constants = [(path, operator.attrgetter(path), value) for path, value in channel.constants.items()]
        self._limits = [(path, operator.attrgetter(path), limit) for path, limit in channel.limits.items()]
        try:
            self._get(self._message)
            for _, get, _ in self._limits:
                get(self._message)
            self._set = _setters(self._message, channel.fields)
            for path, value in channel.constants.items():
                assign(self._message, path, list(value) if isinstance(value, tuple) else value)
        except AttributeError as error:
            raise ValueError(f"channel {channel.name}: {channel.type}: {error}") from None

    def decode(self, message: Any) -> Floats:
        """The vector.

        Raises ValueError if a constant or the length of an array differs, as in another robot's message, or if an
        attribute lies outside its limits.
        """
        for path, get, wanted in self._constants:
            found = get(message)
            if not _same(found, wanted):
                raise ValueError(f"{self.channel.name}: {path} is {_short(found)}, expected {_short(wanted)}")
        for path, get, (low, high, why) in self._limits:
            found = get(message)
            # 32 bit floats: the limit itself may arrive a little larger. Written this way, NaN is outside.
            if not low <= found <= high + 1e-6 * abs(high):
                raise ValueError(f"{self.channel.name}: {path} is {found:.6g}, must lie in [{low:g}, {high:g}]: {why}")
        values = self._get(message)
        if not self._arrays:
            return np.array(values if isinstance(values, tuple) else (values,), np.float64)
        values = values if isinstance(values, tuple) else (values,)
        parts = [np.atleast_1d(np.asarray(value, np.float64)) for value in values]
        # Check every array: if one is too short and another too long, their sum may still be right.
        for part, (path, length) in zip(parts, self._expected, strict=True):
            if part.size != length:
                raise ValueError(f"{self.channel.name}: {path} has length {part.size}, expected {length}")
        return np.concatenate(parts)

    def encode(self, vector: Floats, stamp_ns: int) -> Any:
        """The message; the same object at every call, because publishing copies it."""
        if self.stamped:
            self._message.header.stamp = stamp_of(stamp_ns)
        _write(self._set, vector, self.channel.length)
        return self._message


class CommandCodec:
    """Actions <-> the native command."""

    def __init__(self, command: CommandTopic, stamped: bool) -> None:
        """`stamped` false: the type without a header, if there is one. Raises ValueError as ChannelCodec does."""
        plain = not stamped and bool(command.unstamped_type)
        kind, fields = (command.unstamped_type, command.unstamped_fields) if plain else (command.type, command.fields)
        self.type = message_class(kind)
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
        """The commanded action."""
        values = self._get(message)
        parts = values if isinstance(values, tuple) else (values,)
        return np.concatenate([np.atleast_1d(np.asarray(part, np.float64)) for part in parts])


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
