"""Declares settings as dataclass fields with unit, range and a sentence, and validates their values."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def param(default: Any, unit: str, low: float = -math.inf, high: float = math.inf, doc: str = "") -> Any:
    """Declare a dataclass field. `unit` is SI or '1'. Every number, also inside a tuple, must lie in [low, high]."""
    return dataclasses.field(
        default=default, metadata={"unit": unit, "low": low, "high": high, "doc": doc, "empty": default == ()}
    )


def choice(default: str, options: tuple[str, ...], doc: str = "") -> Any:
    """Declare a dataclass field that takes one of `options`."""
    return dataclasses.field(default=default, metadata={"options": options, "doc": doc})


def section(kind: type[Any], doc: str = "") -> Any:
    """Declare a dataclass field that holds a tuple of dataclasses of their own settings; by default, one of `kind`."""
    return dataclasses.field(default=(kind(),), metadata={"section": kind, "unit": "", "doc": doc})


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make `cls` from a mapping, all or nothing.

    `where` names file and section in messages. Raises ValueError, one line: the key and what would be right.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected 'key: value' pairs, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # cls is a dataclass by contract
    hints = get_type_hints(cls)
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields)
            known = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise ValueError(f"{where}: unknown key '{key}'; {known}")
    checked = {key: _check(value, hints[key], fields[key].metadata, f"{where}: {key}") for key, value in values.items()}
    return cls(**checked)


def _check(value: Any, kind: Any, meta: Mapping[str, Any], where: str) -> Any:
    if "options" in meta:
        if value not in meta["options"]:
            raise ValueError(f"{where} is {value!r}, must be one of: {', '.join(meta['options'])}")
        return value
    if "section" in meta:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"{where} is {value!r}, must be a list of 'key: value' pairs")
        return tuple(build(meta["section"], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is tuple:
        element = get_args(kind)[0]
        if not isinstance(value, list | tuple) or not (value or meta.get("empty")):
            what = "numbers" if get_origin(element) is not tuple else "lists of numbers, such as [[0.2, 0.1], ...]"
            raise ValueError(f"{where} is {value!r}, must be a list of {what}")
        return tuple(_check(item, element, meta, where) for item in value)
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise ValueError(f"{where} is {value!r}, must be {'true or false' if kind is bool else 'text'}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} is {value!r}, must be a finite number")
    if kind is int and int(value) != value:
        raise ValueError(f"{where} is {value!r}, must be a whole number")
    low, high = meta.get("low", -math.inf), meta.get("high", math.inf)
    if not low <= value <= high:
        raise ValueError(f"{where} is {value} {meta.get('unit', '')}, must lie in [{low:g}, {high:g}]")
    return kind(value)
