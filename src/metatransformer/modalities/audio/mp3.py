"""How long an MP3 is: its frames counted, since libsndfile only estimates where the first frame holds no index.

Sources: ISO/IEC 11172-3 and 13818-3 for frame headers (layer III); the Xing, Info and VBRI headers as encoders write
them; ID3v2.4 section 3.1 for the tag in front.
"""

from pathlib import Path

_KBPS = {  # by version (bits 19 and 20): 3 = MPEG 1, 2 = MPEG 2, 0 = MPEG 2.5
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[0] = _KBPS[2]
_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_INDEX = (b"Xing", b"Info", b"VBRI")


def mp3_length(path: Path) -> tuple[int, bool]:
    """Returns how many samples of one channel a file's whole frames hold, and whether it says its length itself."""
    data, place, samples = path.read_bytes(), 0, 0
    if data[:3] == b"ID3" and len(data) > 10:
        place = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    start = place = max(0, data.find(b"\xff", place))
    while 0 <= place < len(data) - 4:
        size, count = _frame(data[place : place + 4])
        if not size:  # tags or damage between frames
            place = data.find(b"\xff", place + 1)
            continue
        place += size
        samples += count if place <= len(data) else 0
    first = _frame(data[start : start + 4])[0]
    return samples, any(name in data[start : start + first] for name in _INDEX)


def _frame(head: bytes) -> tuple[int, int]:
    """Returns the bytes of a frame and the samples in it, 0 and 0 for four bytes that are no header."""
    bits = int.from_bytes(head, "big")
    version, layer, rate, hz = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version == 1 or layer != 1 or rate in (0, 15) or hz == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    return samples // 8 * _KBPS[version][rate] * 1000 // _HZ[version][hz] + (bits >> 9 & 1), samples
