"""The border to foreign decoders, and the limits on what a header may announce."""

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.limits import DEFLATE, require_pixels, require_room
from metatransformer.data.records import listing


class Panic(BaseException):
    """What a Rust extension raises."""


@pytest.mark.parametrize("kind", [ValueError, MemoryError, AssertionError, RecursionError, NotImplementedError, Panic])
def test_whatever_a_library_raises_names_file_library_and_its_words(kind: type[BaseException]):
    with pytest.raises(DataError) as caught, foreign("a.x", "libx", must="be a whole X", do="Copy it."):
        raise kind("block 7 is short\nand more")
    assert str(caught.value) == "a.x: must be a whole X; found a damaged one (libx: 'block 7 is short'). Copy it."
    assert type(caught.value.__cause__) is kind


def test_an_error_without_words_is_told_by_its_type():
    with pytest.raises(DataError, match=r"\(json: 'KeyError'\)"), foreign("a.x", "json"):
        raise KeyError
    with pytest.raises(DataError, match=r"a damaged one \(json: 'Expecting property name"), foreign("a.x", "json"):
        json.loads("{]")


def test_a_bug_of_ours_and_an_interruption_go_through():
    with pytest.raises(ZeroDivisionError), foreign("a.x", "libx"):
        listing(1 / number for number in (1, 0))
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), foreign("a.x", "libx"):
            raise kind
    with pytest.raises(UsageError, match="option: must be 1"), foreign("a.x", "libx"):
        raise UsageError("option", must="be 1", found="2")


def test_warnings_of_a_library_are_not_shown_and_ours_come_back():
    with foreign("a.x", "libx"):
        warnings.warn("an odd tag", stacklevel=1)
    with pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)


def test_pixels_are_counted_before_they_are_decoded():
    require_pixels("a.png", height=13_377, width=13_377)
    with pytest.raises(DataError, match="a.png: must have at most 179 million pixels; found 20,000 x 10,000"):
        require_pixels("a.png", height=10_000, width=20_000)


@pytest.mark.parametrize(("height", "width"), [(8_388_621, 17), (13, 2_097_169)])
def test_a_strip_of_millions_is_refused_before_it_is_decoded(height: int, width: int):
    with pytest.raises(DataError, match=f"a: must have sides of at most 300,000 pixels; found {width:,} x {height:,}"):
        require_pixels("a", height=height, width=width)
    require_pixels("a", height=300_000, width=17)


def test_a_header_may_announce_what_the_file_can_hold(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(60))
    require_room(path, shape=(5, 3), bytes_each=4, what="numbers")
    with pytest.raises(DataError, match="found 5 x 3 numbers announced in a file of 60 bytes. It is cut off"):
        require_room(path, shape=(5, 3), bytes_each=5, what="numbers")
    require_room(path, shape=(60 * DEFLATE,), bytes_each=1, what="bytes", ratio=DEFLATE)
    with pytest.raises(DataError, match="found -1 points announced"):
        require_room(path, shape=(-1,), bytes_each=1, what="points")


def test_deflate_shrinks_by_no_more_than_its_bound():
    import zlib

    zeros = np.zeros(1 << 24, np.uint8)
    assert zeros.nbytes / len(zlib.compress(zeros.tobytes(), 9)) <= DEFLATE


def test_a_comprehension_is_part_of_the_block():
    ours = {"__name__": "metatransformer.made", "foreign": foreign}
    block = "def read(call):\n    with foreign('a.x', 'libx'):\n        return [call(n) for n in (1, 0)]\n"
    exec(block + "def divide(n):\n    return 1 / n\n", ours)
    with pytest.raises(DataError, match="libx: 'division by zero'"):
        ours["read"](lambda n: 1 / n)
    with pytest.raises(ZeroDivisionError):
        ours["read"](ours["divide"])


def test_warnings_are_silent_in_every_thread_and_heard_again_afterwards():
    before, inside = warnings.filters[:], threading.Barrier(2)

    def read(late: bool) -> None:
        with foreign("a.tif", "Pillow"):
            inside.wait()
            if late:
                other.result()
                warnings.warn("odd", stacklevel=1)  # an error under the tests' filters

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(read, late=False)
        pool.submit(read, late=True).result()
    assert warnings.filters == before
