"""What an ONNX file says of itself, read without the package onnx, which a robot need not have.

Only the few fields of the protobuf that tell whether a runtime can load it (onnx/onnx.proto, whose numbers never
change): IR version, opset, and tensors whose data is in another file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
EXTERNAL = 1  # TensorProto.data_location


@dataclass(frozen=True)
class OnnxFacts:
    """Versions of a graph; `external`: part of its data is in another file."""

    ir_version: int
    opset: int  # of the standard operators
    external: bool


def onnx_facts(model: bytes) -> OnnxFacts:
    """Read a ModelProto. Raises ValueError if it is none."""
    ir_version = opset = 0
    external = False
    for number, value in _fields(model):
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif number == 8 and isinstance(value, bytes):  # opset_import: domain, version
            entry = dict(_fields(value))
            if entry.get(1, b"") in (b"", b"ai.onnx"):
                opset = int(entry.get(2, 0))
        elif number == 7 and isinstance(value, bytes):
            external = external or _outside(value)
    return OnnxFacts(ir_version, opset, external)


def _outside(graph: bytes) -> bool:
    """Whether an initializer of this GraphProto, or a constant in one of its nodes, is in another file."""
    for number, value in _fields(graph):
        if number == 5 and isinstance(value, bytes) and dict(_fields(value)).get(14) == EXTERNAL:
            return True
        if number != 1 or not isinstance(value, bytes):
            continue
        for name, attribute in _fields(value):
            for kind, inner in _fields(attribute) if name == 5 and isinstance(attribute, bytes) else ():
                if kind == 5 and isinstance(inner, bytes) and dict(_fields(inner)).get(14) == EXTERNAL:
                    return True
                if kind == 6 and isinstance(inner, bytes) and _outside(inner):  # a graph, of an If or a Loop
                    return True
    return False


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message. Raises ValueError if it is none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire not in (FIXED64, BYTES, FIXED32):
            raise ValueError("is no ONNX file")
        size, at = _varint(message, at) if wire == BYTES else (8 if wire == FIXED64 else 4, at)
        if at + size > len(message):
            raise ValueError("is no whole ONNX file")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, where the next byte is)."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("is no whole ONNX file")
