"""TensorBoard's event file: framing by its specification, and that a second call goes on in it."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from metatransformer.core.errors import DataError
from metatransformer.fit.board import FILE, add_scalars


def crc32c(data: bytes) -> int:
    """Returns the Castagnoli checksum, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read(path: Path) -> list[Event]:
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        assert content[8:12] == masked(content[:8]) and content[12 + length : 16 + length] == masked(data)
        events.append(Event.FromString(data))
        content = content[16 + length :]
    return events


def test_what_was_added_is_read_back(tmp_path: Path):
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial
    for step in (3, 7):
        add_scalars(tmp_path / "board", {"loss": step / 2, "score": 0.25}, step=step)
    first, *rest = read(tmp_path / "board" / FILE)
    assert first.file_version == "brain.Event:2"
    found = [(event.step, value.tag, value.simple_value) for event in rest for value in event.summary.value]
    assert found == [(3, "loss", 1.5), (3, "score", 0.25), (7, "loss", 3.5), (7, "score", 0.25)]


def test_a_full_disk_is_named(tmp_path: Path):
    (tmp_path / FILE).symlink_to("/dev/full")
    with pytest.raises(DataError, match="must have room on its disk"):
        add_scalars(tmp_path, {"loss": 1.0}, step=1)
