"""Changes of bytes, of text, and of the structure of formats: one seeded generator in, a damaged file out.

What a decoder checks first (checksums, compressed parts, sizes of chunks) is taken apart and put together again, so
that damage also reaches what lies behind it.
"""

import ast
import contextlib
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

Change = Callable[[bytes, Random], bytes]

_INTEGERS = (0, 1, 2, 3, 7, 16, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1, -1, -2)
_WIDE = (2**32, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63), *_INTEGERS)
_FLOATS = (float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 1e-320, -0.0, 3e38)
_NUMBERS = (
    *("", "-1", "0", "1", "2", "-0", "99999999999", "353535235358", "2147483648", "4294967296", "18446744073709551616"),
    *("1e400", "-1e400", "1e308", "1e-320", "nan", "NaN", "inf", "-inf", "Infinity", "0x10", "0o7", "1_000", "1,5"),
    *("--1", "+1", "1.2.3", ".", "-", "e", "1e", "\uff11", "\u00b2", "\u0663", "9" * 400, "9" * 5000, "1/0", "1e9"),
    *("true", "null", "None", "?", "1899-12-31", "9999-12-31T23:59:60", "0001-01-01", "24:00", "2020-02-30", "1e18"),
)
_WORDS = (
    *('"', "'", '""', "{}", "[]", "{", "}", "[", "]", "(", ")", "<", ">", "&a;", "&#0;", "%", "\\", "\\u0000"),
    *("\\ud800", "null", "NaN", "=1+1", "#", "//", ";", ",", "\t", "|", ":", " ", "\0", "\x1a", "\x0b", "\x0c", "\x85"),
    *(
        "\u2028",
        "\ufeff",
        "\u200b",
        "\u202e",
        "e\u0301",
        "\U0001f600",
        "\u0130",
        "\xdf",
        "[" * 5000,
        "(" * 5000,
        '{"a":' * 3000,
    ),
    *("<!DOCTYPE a [<!ENTITY a 'b'>]>", "-" * 3000, "x" * 70_000, "end_header", "list uchar int", "nan", "1 " * 3000),
)
_ENDS = ("\r\n", "\r", "\n\n", "\n\r", "\x0b", "\x85", "\u2028", " \n", "\n ", "\n#", "")
_DELIMITERS = ",;\t| :"
_NUMBER = re.compile(r"[+-]?\d[\d.]*(?:[eE][+-]?\d+)?")


def mutated(data: bytes, *, name: str, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Returns ``data`` with one to four changes; ``name`` tells the format, ``others`` are files of the same one."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if others and rng.random() < 0.03:
            data = _spliced(data, rng.choice(others), rng)
            continue
        structured = _of_structure(data, name)
        change = structured if structured is not None and rng.random() < 0.6 else _plain(data, rng)
        with contextlib.suppress(*_TORN):  # what is no longer taken apart is damaged as bytes
            data = change(data, rng)
            continue
        data = change_bytes(data, rng)
    return data


# What taking a damaged file apart raises.
_TORN = (ValueError, IndexError, KeyError, struct.error, zlib.error, OSError, EOFError, SyntaxError, MemoryError)
_TORN += (zipfile.BadZipFile, RecursionError, NotImplementedError, TypeError, OverflowError)


def _plain(data: bytes, rng: Random) -> Change:
    head = data[:512]
    texty = b"\0" not in head and sum(byte > 126 or byte < 9 for byte in head) * 10 <= len(head)
    return change_text if texty and rng.random() < 0.85 else change_bytes


def _spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


# --- bytes ------------------------------------------------------------------------------------------------------------


def _place(size: int, rng: Random) -> int:
    """Returns a place in a file: half of them near its ends, where headers and tables stand."""
    if size <= 0:
        return 0
    near = rng.random()
    if near < 0.4:
        return rng.randrange(min(size, 128))
    return max(0, size - 1 - rng.randrange(min(size, 256))) if near < 0.5 else rng.randrange(size)


def _set_number(data: bytes, rng: Random) -> bytes:
    form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    at = _place(len(data) - size, rng)
    old = struct.unpack(form, data[at : at + size].ljust(size, b"\0"))[0]
    new = rng.choice((rng.choice(_WIDE), old + rng.randint(-3, 3), old * 2, old // 2, ~old, rng.getrandbits(8 * size)))
    return data[:at] + struct.pack(form, new % (1 << 8 * size)) + data[at + size :]


def _set_float(data: bytes, rng: Random) -> bytes:
    form = rng.choice(("<f", ">f", "<d", ">d"))
    at = _place(len(data) - struct.calcsize(form), rng)
    value = rng.choice(_FLOATS)
    value = float("inf") if form[1] == "f" and abs(value) > 3e38 else value
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[_place(len(changed), rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _move(data: bytes, rng: Random) -> bytes:
    start, length = _place(len(data), rng), rng.choice((1, 2, 4, 8, 16, 64, 512))
    part, at = data[start : start + length], _place(len(data), rng)
    kind = rng.randrange(6)
    if kind == 0:
        return data[:start] + data[start + length :]
    if kind == 1:
        return data[:at] + part * rng.choice((1, 1, 2, 50)) + data[at:]
    if kind == 2:
        return data[:at] + part + data[at + len(part) :]
    if kind == 3:
        return data[:start] + bytes([rng.choice((0, 255, 128))]) * len(part) + data[start + length :]
    if kind == 4:
        return data[:at] + rng.randbytes(length) + data[at:]
    return data[:at] + rng.randbytes(len(part)) + data[at + len(part) :]


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.7 else data + rng.randbytes(rng.randrange(1, 64))


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Returns bytes with one change that knows nothing of their format."""
    return rng.choice((_set_number, _set_number, _set_number, _flip, _flip, _move, _cut, _set_float))(data, rng)


# --- text -------------------------------------------------------------------------------------------------------------


def change_text(data: bytes, rng: Random) -> bytes:
    """Returns text with one change: a number, a delimiter, a quote, a line, a column, the encoding."""
    if rng.random() < 0.1:
        return _encoded(data, rng)
    text = data.decode("utf-8", "surrogateescape")
    change = rng.choice((_number, _number, _number, _delimiter, _word, _word, _line, _line, _end, _column, _token))
    return change(text, rng).encode("utf-8", "surrogateescape")


def _number(text: str, rng: Random) -> str:
    found = list(_NUMBER.finditer(text[:20_000]))
    if not found:
        return _word(text, rng)
    one = found[rng.randrange(min(len(found), 12)) if rng.random() < 0.4 else rng.randrange(len(found))]
    return text[: one.start()] + rng.choice(_NUMBERS) + text[one.end() :]


def _delimiter(text: str, rng: Random) -> str:
    old, new = rng.choice(_DELIMITERS), rng.choice(_DELIMITERS)
    return text.replace(old, new, rng.choice((1, 3, -1)))


def _word(text: str, rng: Random) -> str:
    at = _place(len(text), rng)
    return text[:at] + rng.choice(_WORDS) + text[at + rng.choice((0, 0, 1, 4)) :]


def _line(text: str, rng: Random) -> str:
    lines = text.split("\n")
    at, other = (min(rng.randrange(len(lines)), rng.choice((2, 10, len(lines) - 1))) for _ in range(2))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at:at] = [lines[other]] * rng.choice((1, 1, 2, 300))
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif kind == 4:
        lines[at] += rng.choice(_DELIMITERS) + lines[other]
    else:
        lines[at] = rng.choice(_WORDS)
    return "\n".join(lines)


def _end(text: str, rng: Random) -> str:
    return text.replace("\n", rng.choice(_ENDS), rng.choice((1, 2, -1)))


def _column(text: str, rng: Random) -> str:
    delimiter = max(",;\t| ", key=text[:2000].count)
    rows = [line.split(delimiter) for line in text.split("\n")]
    at, new, kind = rng.randrange(max(1, len(rows[0]))), rng.choice(_NUMBERS), rng.randrange(4)
    for row in rows[rng.randrange(2) :]:
        if len(row) <= at:
            continue
        if kind == 0:
            del row[at]
        elif kind == 1:
            row.insert(at, row[at])
        elif kind == 2:
            row[at] = new
        else:
            row[at] = f"{row[at]}{new}"
    return "\n".join(delimiter.join(row) for row in rows)


def _token(text: str, rng: Random) -> str:
    tokens = re.split(r"(\W+)", text[:20_000])
    tokens[rng.randrange(len(tokens))] = tokens[rng.randrange(len(tokens))]
    return "".join(tokens) + text[20_000:]


def _encoded(data: bytes, rng: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    at = _place(len(data), rng)
    odd = rng.choice((b"\xff", b"\xe4", b"\x80", b"\xed\xa0\x80", b"\xc0\x80", b"\0", b"\xf4\x90\x80\x80", b"\xc3"))
    forms = (
        data[:at] + odd + data[at:],
        text.encode("utf-16"),
        text.encode("utf-16-be"),
        text.encode("utf-32"),
        b"\xef\xbb\xbf" + data,
        text.replace("e", "\xe9").encode("latin-1", "replace"),
        text.upper().encode(),
        text.encode("utf-7"),
    )
    return rng.choice(forms)


# --- structure --------------------------------------------------------------------------------------------------------


def _of_structure(data: bytes, name: str) -> Change | None:
    """Returns the change that takes this format apart, None where bytes or text are all there is."""
    for start, change in _STARTS:
        if data.startswith(start):
            return change
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return _boxes
    if data[128:132] == b"DICM":
        return _dicom
    if data.startswith(b"MATLAB 5.0") and b"HDF" not in data[:520]:
        return _matlab
    return _json if name.endswith((".json", ".jsonl", ".gltf")) else None


def _shuffled(parts: list[bytes], rng: Random) -> list[bytes]:
    """Returns parts of a file with one of them changed, left out, repeated or moved."""
    parts, at = list(parts), rng.randrange(len(parts))
    kind = rng.randrange(8)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.insert(rng.randrange(len(parts) + 1), parts[at])
    elif kind == 2:
        parts.insert(rng.randrange(len(parts)), parts.pop(at))
    else:
        parts[at] = change_bytes(parts[at], rng)
    return parts


def _gzip(data: bytes, rng: Random) -> bytes:
    inner = gzip.decompress(data)
    return gzip.compress((_of_structure(inner, "") or _plain(inner, rng))(inner, rng), mtime=0)


def _png(data: bytes, rng: Random) -> bytes:
    parts, place = [], 8
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        parts.append(data[place + 4 : place + 8 + size])
        place += 12 + size
    packed = [i for i, part in enumerate(parts) if part[:4] == b"IDAT"]
    if packed and rng.random() < 0.25:
        at = rng.choice(packed)
        parts[at] = b"IDAT" + zlib.compress(change_bytes(zlib.decompress(parts[at][4:]), rng))
    else:
        parts = _shuffled(parts, rng)
    parts = [part for part in parts if len(part) > 3]
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return data[:8] + b"".join(chunks)


def _riff(data: bytes, rng: Random) -> bytes:
    """Chunks of WAV, AVI and WebP; AIFF has the other byte order."""
    order = "<" if data.startswith(b"RIFF") else ">"
    parts, place = [], 12
    while place + 8 <= len(data):
        size = struct.unpack(order + "I", data[place + 4 : place + 8])[0]
        parts.append(data[place : place + 8 + size])
        place += 8 + size + size % 2
    parts = _shuffled(parts, rng)
    if rng.random() < 0.7:  # sizes that are right again
        parts = [part[:4] + struct.pack(order + "I", max(0, len(part) - 8)) + part[8:] for part in parts]
    body = data[8:12] + b"".join(part + bytes(len(part) % 2) for part in parts)
    return data[:4] + struct.pack(order + "I", len(body)) + body


_HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf", b"meta")


def _boxes(data: bytes, rng: Random) -> bytes:
    """Boxes of MP4, MOV and AVIF, at any depth."""
    parts, place = [], 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        size = size if size >= 8 else len(data) - place
        parts.append(data[place : place + size])
        place += size
    inner = [i for i, part in enumerate(parts) if part[4:8] in _HOLDERS and len(part) > 8]
    if inner and rng.random() < 0.85:
        at = rng.choice(inner)
        parts[at] = parts[at][:8] + _boxes(parts[at][8:], rng)
    else:
        parts = _shuffled(parts, rng)
    if rng.random() < 0.8:
        parts = [len(part).to_bytes(4, "big") + part[4:] for part in parts if len(part) >= 8]
    return b"".join(parts)


def _tiff(data: bytes, rng: Random) -> bytes:
    """One entry of a directory: its tag, type, count or value; or the order, or where the next directory stands."""
    order, big = ("<" if data.startswith(b"II") else ">"), data[2:4] in (b"+\0", b"\0+")
    head, count, entry, word = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    place = struct.unpack_from(order + word, data, head)[0]
    number = struct.unpack_from(order + count, data, place)[0]
    first = place + struct.calcsize(count)
    at = first + entry * rng.randrange(number)
    out = bytearray(data)
    kind = rng.randrange(8)
    if kind == 0:
        struct.pack_into(order + "H", out, at, rng.choice((rng.randrange(254, 340), 33550, 42112, 42113, 34665, 330)))
    elif kind == 1:
        struct.pack_into(order + "H", out, at + 2, rng.choice((*range(20), 65535)))
    elif kind == 2:
        struct.pack_into(order + word, out, at + 4, rng.choice(_INTEGERS) % 2**32)
    elif kind == 3:
        other = first + entry * rng.randrange(number)
        out[at : at + entry] = data[other : other + entry]
    elif kind == 4:
        after = rng.choice((place, rng.choice(_INTEGERS) % 2**32, rng.randrange(len(data))))
        struct.pack_into(order + word, out, first + entry * number, after)
    else:
        value = rng.choice((rng.choice(_INTEGERS), rng.randrange(70), rng.randrange(len(data))))
        form, size = rng.choice((("H", 2), ("I", 4)))
        struct.pack_into(order + form, out, at + entry - struct.calcsize(word), value % (1 << 8 * size))
    return bytes(out)


def _zip(data: bytes, rng: Random) -> bytes:
    """Members of an NPZ, each an NPY file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(members))
    members[chosen] = mutated(members[chosen], name=chosen, rng=rng)
    if rng.random() < 0.2:
        names = [rng.choice((name, name.upper(), f"../{name}", "x.npy", name[:-4])) for name in members]
        members = dict(zip(names, members.values(), strict=True))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return out.getvalue()


_KINDS = ("<f8", ">f4", "<f2", "|b1", "|u1", "<i8", ">i2", "|O", "<U5", "|S3", "<M8[ns]", "<m8[s]", "<c16", "|V7")
_KINDS += (
    "f8,i4",
    "<f16",
    "<U0",
    "|S0",
    "x",
    "",
    "<f9",
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4")],
    [("x", "<f4", (3,))],
    [],
)
_SIZES = (0, 1, 2, 3, -1, 7, 10**6, 10**12, 2**31, 2**63, 2**64, 1.5, "3", None, True)


def _npy(data: bytes, rng: Random) -> bytes:
    """The header of an NPY file: type, shape and order."""
    size = int.from_bytes(data[8:10], "little")
    about, body = ast.literal_eval(data[10 : 10 + size].decode("latin-1")), data[10 + size :]
    shape, kind = list(about["shape"]), rng.randrange(6)
    if kind == 0:
        about["descr"] = rng.choice(_KINDS)
    elif kind == 1:
        about["fortran_order"] = rng.choice((True, False, 1, None))
    elif kind == 2:
        about.pop(rng.choice(list(about)))
    elif kind == 3:
        shape = rng.choice(([], shape[::-1], [1, *shape], [*shape, 1], shape[:-1], [0], [len(body)]))
    elif shape:
        shape[rng.randrange(len(shape))] = rng.choice(_SIZES)
    if kind > 2:
        about["shape"] = tuple(shape)
    text = repr(about).encode() + b"\n"
    return data[:6] + bytes([rng.choice((1, 1, 1, 2, 3, 9)), 0]) + struct.pack("<H", len(text)) + text + body


_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"OD", b"OL", b"UC", b"UR")
_VRS = (*_LONG, b"US", b"SS", b"UL", b"DS", b"IS", b"CS", b"LO", b"UI", b"FD", b"FL", b"AT", b"PN", b"DA", b"xx")
_VALUES = (b"1\\2\\3", b"x ", b"", b"-1", b"1e400", b"99999999999 ", b"NaN ", b"RGB ", b"MONOCHROME1 ", b"\x01")
_VALUES += (
    b"PALETTE COLOR ",
    b"\0\0",
    b"\xff\xff",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.1.99",
)


def _dicom(data: bytes, rng: Random) -> bytes:
    """Elements of explicit VR, little endian: their type, length, value and order."""
    parts, place = [], 132
    while place + 8 <= len(data):
        long = data[place + 4 : place + 6] in _LONG
        head = 12 if long else 8
        size = int.from_bytes(data[place + 8 : place + 12] if long else data[place + 6 : place + 8], "little")
        parts.append(data[place : place + head + min(size, len(data))])
        place += head + size
    at = rng.randrange(len(parts))
    part, kind = parts[at], rng.randrange(4)
    if kind == 0 and part[4:6] not in _LONG:
        value = rng.choice(_VALUES)
        value += b" " * (len(value) % 2)
        parts[at] = part[:6] + struct.pack("<H", len(value)) + value
    elif kind == 1:
        parts[at] = part[:4] + rng.choice(_VRS) + part[6:]
    else:
        parts = _shuffled(parts, rng)
    return data[:132] + b"".join(parts)


def _matlab(data: bytes, rng: Random) -> bytes:
    """Elements of MATLAB 5: the packed ones unpacked and packed again."""
    parts, place = [], 128
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        body = data[place + 8 : place + 8 + size]
        parts.append(zlib.decompress(body) if kind == 15 else data[place : place + 8 + size])
        place += 8 + size
    parts = _shuffled(parts, rng)
    packed = (zlib.compress(part) for part in parts)
    return data[:128] + b"".join(struct.pack("<II", 15, len(part)) + part for part in packed)


def _json(data: bytes, rng: Random) -> bytes:
    """One value of a JSON document, or of a line of several: another type, size or name."""
    lines = data.decode().split("\n")
    at = rng.randrange(len(lines)) if data.count(b"\n{") else 0
    text = lines[at] if data.count(b"\n{") else "\n".join(lines)
    tree = json.loads(text)
    places: list[tuple[dict | list, str | int]] = []
    stack = [tree]
    while stack and len(places) < 3000:
        node = stack.pop()
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            places += [(node, key) for key in keys]
            stack += [node[key] for key in keys]
    values = (None, True, -1, 0, 1, 2**31, 2**70, 10**400, *_FLOATS, "", "x", "1", [], {}, [[]], [1, 2], {"x": 1})
    holder, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "path", "label", "byteOffset", "\ud800", "a.b"))] = holder.pop(key)
    elif kind == 2:
        other, name = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    else:
        holder[key] = rng.choice(values)
    text = json.dumps(tree)
    return "\n".join([*lines[:at], text, *lines[at + 1 :]]).encode() if data.count(b"\n{") else text.encode()


_CRC = []
for _value in range(256):  # of Ogg's pages: the polynomial of CRC-32, bits not reversed
    _rest = _value << 24
    for _ in range(8):
        _rest = (_rest << 1 ^ 0x04C11DB7 if _rest & 0x80000000 else _rest << 1) & 0xFFFFFFFF
    _CRC.append(_rest)


def _ogg(data: bytes, rng: Random) -> bytes:
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    out = []
    for page in _shuffled(pages, rng):
        page, check = page[:22] + bytes(4) + page[26:], 0
        for byte in page:
            check = (check << 8 & 0xFFFFFFFF) ^ _CRC[check >> 24 ^ byte]
        out.append(page[:22] + check.to_bytes(4, "little") + page[26:])
    return b"".join(out)


_STARTS: tuple[tuple[bytes, Change], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\x89PNG", _png),
    (b"RIFF", _riff),
    (b"FORM", _riff),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"PK\x03\x04", _zip),
    (b"\x93NUMPY", _npy),
    (b"OggS", _ogg),
)
