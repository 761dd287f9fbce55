"""Take what is optional out of image files: orientation, profiles, texts. What pixels are made of stays as it is."""

import struct

_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # in the header VP8X, which says what follows
_ADOBE = 0xEE  # APP14, which says how a JPEG's colours are coded
_TIFF_KEPT = {  # sizes, depth, compression, places of the strips or tiles, colours, orientation
    *range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, *range(320, 326), 332, 338, 339, 347,
    *range(512, 522), 529, 530, 531, 532,
}  # fmt: skip
_PRIVATE = 65000  # the first of the TIFF tags that mean nothing to a reader


def without_metadata(data: bytes, *, keep_exif: bool) -> bytes:
    """Return the file without its metadata, with or without EXIF, which holds the orientation.

    A file that is none of PNG, JPEG, WebP, TIFF and AVIF stays as it is.
    Raises struct.error or IndexError where it is cut off in the middle of a part.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data, keep_exif)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, keep_exif)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, keep_exif)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data, keep_exif)
    if data[4:8] == b"ftyp" and not keep_exif:
        # An item of a kind that no reader knows is passed over; `infe` is the entry that says what kind an item is.
        place = data.find(b"Exif", data.find(b"infe"))
        return data[:place] + b"skip" + data[place + 4 :] if place > 0 else data
    return data


def _png(data: bytes, keep_exif: bool) -> bytes:
    kept, place = [data[:8]], 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind in _PNG_KEPT or (keep_exif and kind == b"eXIf"):
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _jpeg(data: bytes, keep_exif: bool) -> bytes:
    kept, place = [data[:2]], 2
    while data[place] == 0xFF and (marker := data[place + 1]) != 0xDA:  # up to the first scan
        if marker == 0xFF:  # padding
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        is_exif = marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0"
        if marker == _ADOBE or not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (is_exif and keep_exif):
            kept.append(data[place:end])
        place = end
    return b"".join(kept) + data[place:]


def _webp(data: bytes, keep_exif: bool) -> bytes:
    kept, place = [], 12
    dropped = {kind: flag for kind, flag in _WEBP_FLAGS.items() if not (keep_exif and kind == b"EXIF")}
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        chunk = data[place:end]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~sum(dropped.values())]) + chunk[9:]
        if kind not in dropped:
            kept.append(chunk)
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(data: bytes, keep_exif: bool) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    bare = bytearray(data)
    kept = _TIFF_KEPT | ({34665} if keep_exif else set())
    for place in range(first + 2, first + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        if tag not in kept:
            struct.pack_into(f"{order}HHII", bare, place, _PRIVATE + (tag & 0xFF), 1, 1, 0)  # one byte, here
    return bytes(bare)
