"""TensorBoard's event file, written record by record.

Nothing runs beside the training: a full disk shows in the call that met it, and no thread is left
to fail later. tensorboardX's own writers have such a thread (SummaryWriter), or replace the file that
a run goes on with (RecordWriter), so only its messages and checksums are used. Framing: TFRecord
(length, its checksum, the event, its checksum), little-endian.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metatransformer.data.write import append_bytes

FILE = "events.out.tfevents.0.metatransformer"


def add_scalars(folder: Path, values: Mapping[str, float], *, step: int) -> None:
    """Appends one event with all values to the folder's event file, which is begun where there is none.

    Raises:
        DataError: the disk is full, or the place may not be written to.
    """
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

    messages: Any = event_pb2  # its classes are made when it is imported
    path = folder / FILE
    now = time.time()
    records = b""
    if not path.is_file():
        records += _framed(messages.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for name, value in values.items():
        event = messages.Event(wall_time=now, step=step, summary=scalar(name, value))
        records += _framed(event.SerializeToString())
    append_bytes(path, records)


def _framed(data: bytes) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]
