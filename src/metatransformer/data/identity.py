"""Whether data is still the data of an earlier call."""

import hashlib
from collections.abc import Sequence

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record


def data_identity(records: Sequence[Record]) -> str:
    """Returns a hash of keys, splits, targets, and the size and time of every file: enough to see that data changed.

    Raises:
        DataError: a file is not there, as behind a broken link.
    """
    digest = hashlib.sha256()
    for record in records:
        line = [record.key, record.split, record.target, record.group, record.part]
        if record.path is not None:
            try:
                about = record.path.stat()
            except OSError as error:
                found = f"'{error.strerror}'"
                raise DataError(record.path, must="be a file", found=found, do="Remove it.") from error
            line += [about.st_size, about.st_mtime_ns]
        else:
            line.append(repr(record.value))
        digest.update(repr(line).encode())
    return digest.hexdigest()
