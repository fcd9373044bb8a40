"""A field: the one declaration of an array's axes, type, unit and range.

The same declaration checks what a reader or a transform produced, pads and masks a batch, and prints the
documentation. The axes are a string of words: ``"3 h* w*"`` is an array ``[3, h, w]`` whose height and width differ
from sample to sample (``*``), ``"t* c"`` a series whose length differs and whose number of channels ``c`` is the same
for the whole data set, ``""`` a scalar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metatransformer.core.errors import DataError


@dataclass(frozen=True)
class Field:
    """What one array of a sample must look like.

    ``low`` and ``high`` are inclusive limits in ``unit``; ``missing`` allows NaN as "not measured"; ``pad`` is the
    value that fills the ragged axes of a batch (masked out, so that it never changes a result).
    """

    axes: str
    dtype: str = "float32"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    missing: bool = False
    pad: float = 0.0
    summary: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The axes as words, the ragged ones with their star."""
        return tuple(self.axes.split())

    @property
    def ragged(self) -> tuple[int, ...]:
        """Positions of the axes whose length differs inside a batch."""
        return tuple(i for i, name in enumerate(self.names) if name.endswith("*"))

    def check(self, array: object, *, where: str) -> np.ndarray:
        """Returns ``array`` unchanged when it satisfies the declaration.

        Raises:
            DataError: wrong type, number of axes, fixed length, empty axis, NaN, infinity, or value out of range;
                the message starts with ``where`` (a file and the field's name).
        """
        if not isinstance(array, np.ndarray):
            raise DataError(where, must="be a numpy array", found=f"a {type(array).__name__}")
        if array.dtype != np.dtype(self.dtype):
            raise DataError(where, must=f"have dtype {self.dtype}", found=str(array.dtype))
        if array.ndim != len(self.names):
            raise DataError(
                where, must=f"have the axes [{', '.join(self.names)}]", found=f"an array of shape {array.shape}"
            )
        for axis, (name, size) in enumerate(zip(self.names, array.shape, strict=True)):
            if name.isdigit() and size != int(name):
                raise DataError(where, must=f"have {name} entries on axis {axis}", found=str(size))
            if size == 0:
                raise DataError(where, must=f"have at least one entry on axis '{name}'", found="an empty array")
        if array.dtype.kind in "fiu":
            self._check_values(array, where=where)
        return array

    def _check_values(self, array: np.ndarray, *, where: str) -> None:
        values = array
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            if self.missing:
                finite |= np.isnan(array)
                values = array[~np.isnan(array)]
            if not finite.all():
                bad = int((~finite).sum())
                what = "infinities" if self.missing else "NaN or infinite values"
                raise DataError(
                    where,
                    must="hold finite numbers",
                    found=f"{bad} {what} of {array.size}",
                    do="Repair or remove them.",
                )
        if values.size == 0:
            return
        low, high = values.min(), values.max()
        too_low = self.low is not None and low < self.low
        too_high = self.high is not None and high > self.high
        if too_low or too_high:
            unit = f" {self.unit}" if self.unit else ""
            raise DataError(
                where,
                must=f"lie in [{self.low}, {self.high}]{unit}",
                found=f"values from {low:g} to {high:g}",
                do="Check the unit and the scale of the file.",
            )

    def stack(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the arrays as one batch and the mask of its ragged axes.

        The batch is ``[B, *axes]`` with the ragged axes padded to the longest; the mask is ``[B, *ragged axes]``, True
        where the value is real. A field without ragged axes has a mask of shape ``[B]``.
        """
        shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
        batch = np.full((len(arrays), *shape), self.pad, dtype=self.dtype)
        mask = np.zeros((len(arrays), *(shape[i] for i in self.ragged)), dtype=bool)
        for row, array in enumerate(arrays):
            batch[(row, *(slice(size) for size in array.shape))] = array
            mask[(row, *(slice(array.shape[i]) for i in self.ragged))] = True
        return batch, mask

    def describe(self) -> str:
        """Returns the declaration on one line, as ``describe`` and the documentation print it."""
        text = f"[{', '.join(self.names)}] {self.dtype}"
        if self.unit:
            text += f", {self.unit}"
        if self.low is not None and self.high is not None:
            text += f", {self.low:g} to {self.high:g}"
        elif self.low is not None or self.high is not None:
            text += f", at least {self.low:g}" if self.high is None else f", at most {self.high:g}"
        if self.missing:
            text += ", NaN = missing"
        return f"{text}: {self.summary}" if self.summary else text
