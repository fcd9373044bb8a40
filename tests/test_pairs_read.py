"""Pairs on disk: three layouts give the same pairs; broken ones are counted, filters say what they took."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metatransformer.core.errors import DataError, UsageError
from metatransformer.infer.loader import Place
from metatransformer.modalities._picture.read import decode_image
from metatransformer.pairs.order import Order
from metatransformer.pairs.read import Pairs, Tars, Wanted, label_of, read_pairs
from metatransformer.pairs.scans import Scans

TEXTS = ["a red square", "a blue one", "a red square", "green", "Un carré", "a dark  Blue one"]
MORE = [{"language": "fr" if "carr" in text else "en", "similarity": 0.2 + 0.05 * n} for n, text in enumerate(TEXTS)]


def png(number: int, side: int = 9) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, format="png")
    return data.getvalue()


def write_tar(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    with tarfile.open(path, "w") as tar:
        for key, parts in samples:
            for kind, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def samples(first: int, last: int) -> list[tuple[str, dict[str, bytes]]]:
    return [
        (
            f"{number:06}",
            {"png": png(number), "txt": TEXTS[number].encode(), "json": json.dumps(MORE[number]).encode()},
        )
        for number in range(first, last)
    ]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "00000.tar", samples(0, 4))
    write_tar(folder / "00001.tar", samples(4, 6))
    return folder


def content(pairs: Pairs) -> list[tuple[bytes, str]]:
    return [pairs.read(row)[:2] for row in range(len(pairs))]


EXPECTED = [(png(number), text) for number, text in enumerate(TEXTS)]


def test_shards_a_manifest_and_parquet_hold_the_same_pairs(shards: Path, tmp_path: Path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    names = [f"{number}.png" for number in range(6)]
    pd.DataFrame({"path": names, "text": TEXTS}).to_csv(tmp_path / "pairs.csv", index=False)
    pd.DataFrame({"file": names, "caption": TEXTS}).to_parquet(tmp_path / "paths.parquet")
    pd.DataFrame({"image": [png(n) for n in range(6)], "text": TEXTS}).to_parquet(
        tmp_path / "bytes.parquet", row_group_size=4
    )
    inside = [{"bytes": png(n), "path": names[n]} for n in range(6)]
    pd.DataFrame({"image": inside, "text": TEXTS}).to_parquet(tmp_path / "library.parquet")
    places = [shards, f"{shards}/*.tar", f"{shards}/{{00000..00001}}.tar"]
    places += [tmp_path / name for name in ("pairs.csv", "paths.parquet", "bytes.parquet", "library.parquet")]
    identities = set()
    for place in places:
        pairs = read_pairs(str(place), Wanted())
        assert content(pairs) == EXPECTED and not pairs.broken and not pairs.left_out, place
        identities.add(pairs.identity())
    assert len(identities) == 2  # in one shard, and in two


def test_equal_texts_have_one_label_and_stay_on_one_side(shards: Path):
    pairs = read_pairs(str(shards), Wanted())
    assert label_of("a  Red square") == label_of("a red square") != label_of("a red squares")
    assert (pairs.label == [label_of(text) for text in TEXTS]).all()
    for share in (0.2, 0.4, 0.6):
        learned, held = pairs.apart(share, most=5)
        assert len(learned) + len(held) == 6 and len(held) <= round(share * 6)
        assert not set(learned.label) & set(held.label)
    assert len(pairs.apart(0.5, most=1)[1]) <= 1 and len(pairs.apart(0.0, most=5)[1]) == 0


@pytest.mark.parametrize(
    ("wanted", "kept", "left_out"),
    [
        (Wanted(language="EN"), [0, 1, 2, 3, 5], {"another language": 1}),
        (Wanted(similarity=0.33), [3, 4, 5], {"too little similarity": 3}),
        (Wanted(least_words=2, most_words=3), [0, 1, 2, 4], {"too short a text": 1, "too long a text": 1}),
        (Wanted(duplicates="texts"), [0, 1, 3, 4, 5], {"duplicates": 1}),
        (Wanted(duplicates="pairs"), [0, 1, 2, 3, 4, 5], {}),
    ],
)
def test_filters_keep_and_count(shards: Path, wanted: Wanted, kept: list[int], left_out: dict[str, int]):
    pairs = read_pairs(str(shards), wanted)
    assert content(pairs) == [EXPECTED[number] for number in kept] and pairs.left_out == left_out


def test_one_of_each_equal_pair_is_kept(tmp_path: Path):
    twice = [*samples(0, 2), ("again", dict(samples(0, 1)[0][1]))]
    write_tar(tmp_path / "a.tar", twice)
    pairs = read_pairs(str(tmp_path / "a.tar"), Wanted(duplicates="pairs"))
    assert content(pairs) == EXPECTED[:2] and pairs.left_out == {"duplicates": 1}


def test_a_filter_that_asks_for_what_is_not_there_is_refused(shards: Path):
    with pytest.raises(UsageError, match="must have 'lang', which a filter asks for.*Did you mean 'language'"):
        read_pairs(str(shards), Wanted(language="en", language_column="lang"))


def test_broken_members_are_counted_and_the_others_kept(tmp_path: Path):
    parts = samples(0, 6)
    del parts[1][1]["txt"]
    del parts[2][1]["png"]
    parts[3][1]["txt"] = b"\xff\xfe\xfa"
    write_tar(tmp_path / "a.tar", parts)
    whole = (tmp_path / "a.tar").read_bytes()
    write_tar(tmp_path / "b.tar", samples(0, 3))
    data = (tmp_path / "b.tar").read_bytes()
    cut = data.index(b"000002.png") + 512 + 40  # within the third picture
    (tmp_path / "b.tar").write_bytes(data[:cut])
    (tmp_path / "c.tar").write_bytes(b"no tar at all" * 100)
    pairs = read_pairs(str(tmp_path), Wanted())
    assert content(pairs) == [EXPECTED[number] for number in (0, 4, 5, 0, 1)]
    told = " | ".join(pairs.broken)
    assert len(pairs.broken) == 5 and "no text" in told and "no picture" in told and "cut off" in told
    assert len(whole) > 0


def test_a_manifest_names_what_is_missing(tmp_path: Path):
    (tmp_path / "0.png").write_bytes(png(0))
    table = pd.DataFrame({"path": ["0.png", "gone.png", "0.png"], "text": [TEXTS[0], "x", None]})
    table.to_parquet(tmp_path / "pairs.parquet")
    pairs = read_pairs(str(tmp_path / "pairs.parquet"), Wanted())
    assert content(pairs) == EXPECTED[:1] and len(pairs.broken) == 2 and "gone.png" in pairs.broken[0]


def test_what_holds_no_pairs_is_refused_in_one_message(tmp_path: Path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="must have a column path or file or filepath; found a, b"):
        read_pairs(str(tmp_path / "table.csv"), Wanted())
    with pytest.raises(DataError, match="must be .tar shards, Parquet, a table.*found nothing there"):
        read_pairs(str(tmp_path / "nothing"), Wanted())
    with pytest.raises(DataError, match="must name files that are there; found no .*00001.tar"):
        (tmp_path / "00000.tar").write_bytes(b"")
        read_pairs(str(tmp_path / "{00000..00001}.tar"), Wanted())
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="must be an uncompressed .tar"):
        read_pairs(str(tmp_path / "a.tar.gz"), Wanted())
    write_tar(tmp_path / "short.tar", samples(0, 6))
    with pytest.raises(DataError, match="must hold pairs of a picture and a text; found 6 too short a text"):
        read_pairs(str(tmp_path / "short.tar"), Wanted(least_words=9))


def test_a_jpeg_is_decoded_smaller_and_damage_is_named():
    data = io.BytesIO()
    Image.new("RGB", (400, 300), (200, 30, 30)).save(data, format="jpeg")
    assert decode_image(data.getvalue(), where=Path("x"), least=60).shape == (75, 100, 3)
    assert decode_image(data.getvalue(), where=Path("x"), least=900).shape == (300, 400, 3)
    for damaged in (data.getvalue()[:200], b"nothing"):
        with pytest.raises(DataError, match="^shard/7: must be a"):
            decode_image(damaged, where=Path("shard/7"), least=60)


# --- the order --------------------------------------------------------------------------------------------------------


def test_an_epoch_sees_every_pair_once_and_two_processes_see_what_one_does():
    shards = np.repeat(np.arange(5), [3, 4, 1, 7, 8])
    order = Order(shards, batch=6, seed=3)
    assert order.steps == 3
    seen = np.concatenate([order.rows(step, Place()) for step in range(3)])
    assert len(set(seen.tolist())) == 18
    other = Order(shards, batch=6, seed=3)
    for step in (7, 2, 0):  # whatever was asked before
        both = np.concatenate([other.rows(step, Place(rank, 2)) for rank in range(2)])
        assert (both == order.rows(step, Place())).all()
    assert (Order(shards, batch=6, seed=4).rows(0, Place()) != order.rows(0, Place())).any()
    assert (order.rows(3, Place()) != order.rows(0, Place())).any()


def test_pairs_are_mixed_within_windows_of_whole_shards():
    shards = np.repeat(np.arange(10), 8)
    rows = np.concatenate([Order(shards, batch=8, seed=0, window=16).rows(step, Place()) for step in range(10)])
    for start in range(0, 80, 16):
        assert len(set((rows[start : start + 16] // 8).tolist())) == 2
    assert sorted(rows.tolist()) == list(range(80))


# --- what an earlier start found --------------------------------------------------------------------------------------


def test_a_later_start_looks_through_what_changed_and_nothing_else(shards: Path, tmp_path: Path, monkeypatch):
    parts = samples(0, 4)
    del parts[1][1]["txt"]
    write_tar(shards / "00000.tar", parts)
    wanted, looked = Wanted(least_words=2, duplicates="pairs"), []
    look = Tars.look

    def counted(self, shard: int, *, columns):
        looked.append(shard)
        return look(self, shard, columns=columns)

    monkeypatch.setattr(Tars, "look", counted)

    def start(wanted: Wanted = wanted) -> tuple[Pairs, Scans]:
        looked.clear()
        scans = Scans(tmp_path / "index")
        return read_pairs(str(shards), wanted, scans=scans), scans

    first, scans = start()
    assert sorted(looked) == [0, 1] and scans.found == 0 and len(list((tmp_path / "index").iterdir())) == 2
    again, scans = start()
    assert not looked and scans.found == 2
    assert content(again) == content(first) and again.identity() == first.identity()
    assert again.left_out == first.left_out == {"too short a text": 1} and again.broken == first.broken != ()
    write_tar(shards / "00001.tar", samples(3, 6))
    again, scans = start()
    assert looked == [1] and scans.found == 1 and content(again) == content(read_pairs(str(shards), wanted))
    scans.clean()
    assert len(list((tmp_path / "index").iterdir())) == 2  # that of the old shard is gone
    start(Wanted(least_words=2, duplicates="all"))
    assert sorted(looked) == [0, 1]  # asked for otherwise
    for path in (tmp_path / "index").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    again, _ = start()
    assert sorted(looked) == [0, 1] and content(again) == content(read_pairs(str(shards), wanted))


def test_groups_of_parquet_are_found_again_and_a_manifest_is_read_anew(tmp_path: Path):
    frame = pd.DataFrame({"image": [png(n) for n in range(6)], "text": TEXTS})
    frame.to_parquet(tmp_path / "bytes.parquet", row_group_size=4)
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    pd.DataFrame({"path": [f"{n}.png" for n in range(6)], "text": TEXTS}).to_csv(tmp_path / "pairs.csv", index=False)
    for name, found in (("bytes.parquet", 2), ("pairs.csv", 0)):
        for _ in range(2):
            scans = Scans(tmp_path / "index")
            assert content(read_pairs(str(tmp_path / name), Wanted(), scans=scans)) == EXPECTED
        assert scans.found == found


def test_what_is_kept_is_bounded_and_a_full_disk_only_costs_time(shards: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("metatransformer.pairs.scans.MOST_BYTES", 1)
    scans = Scans(tmp_path / "index")
    assert content(read_pairs(str(shards), Wanted(), workers=1, scans=scans)) == EXPECTED
    assert scans.full and len(list((tmp_path / "index").iterdir())) == 1
    (tmp_path / "file").write_bytes(b"")
    scans = Scans(tmp_path / "file" / "index")  # cannot be made
    assert content(read_pairs(str(shards), Wanted(), scans=scans)) == EXPECTED and scans.full


TWO = """
import sys
from pathlib import Path
from metatransformer.pairs.read import Wanted, read_pairs
from metatransformer.pairs.scans import Scans
for _ in range(4):
    scans = Scans(Path(sys.argv[2]))
    print(read_pairs(sys.argv[1], Wanted(), scans=scans, first=float(sys.argv[3])).identity())
    for path in scans.folder.glob("[!.]*.npz"):
        path.unlink(missing_ok=True)
"""


def test_two_processes_write_the_same_scans_without_harm(shards: Path, tmp_path: Path):
    for number in range(2, 8):
        write_tar(shards / f"{number:05}.tar", samples(0, 6))
    words = [sys.executable, "-c", TWO, str(shards), str(tmp_path / "index")]
    both = [subprocess.Popen([*words, first], stdout=subprocess.PIPE, text=True) for first in ("0", "0.5")]
    told = [process.communicate()[0].split() for process in both]
    expected = read_pairs(str(shards), Wanted()).identity()
    assert [process.returncode for process in both] == [0, 0] and told == [[expected] * 4] * 2
