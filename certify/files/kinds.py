"""What a file really is, by its first bytes: downloads go wrong, and endings say little."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

#: Enough for every mark below; a tar archive has its own at byte 257.
START = 512


class Kind(NamedTuple):
    """``what`` a file is, as in "it is ...", and what to ``do`` about it."""

    what: str
    do: str


_UNPACK = "unpack it, and give the model file inside"
_AGAIN = "download it again"
_MARKS = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras and TensorFlow write weights (.h5)",
        "convert the network to ONNX: python -m tf2onnx.convert --keras model.h5 --output model.onnx",
    ),
    (b"GGUF", "a GGUF file of a language model", "give a classifier's weights"),
    (b"\x93NUMPY", "a numpy array (.npy)", "save the weights by name: torch.save(state_dict, path)"),
    (b"%PDF", "a PDF document", _AGAIN),
    (b"\x89PNG", "a PNG picture", "give it with --data, in a folder"),
    (b"\xff\xd8\xff", "a JPEG picture", "give it with --data, in a folder"),
    (b"\x7fELF", "a program", "give the model's weights"),
    (b"MZ", "a Windows program", "give the model's weights"),
)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/.*?\bsize (\d+)", re.S)
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|title)",
    re.I | re.S,
)


def what_is(start: bytes) -> Kind | None:
    """The kind of file that begins with these bytes (the first ``START`` of them), if it has a known one.

    zip archives and pickles have none here: what they are depends on what is inside.
    """
    for mark, what, do in _MARKS:
        if start.startswith(mark):
            return Kind(what, do)
    if start[257:262] == b"ustar":
        return Kind("a tar archive", _UNPACK)
    if start[4:8] == b"TFL3":
        return Kind(
            "a TensorFlow Lite model", "convert the network to ONNX: python -m tf2onnx.convert --tflite"
        )
    if (pointer := _LFS.match(start)) is not None:
        return Kind(
            f"a Git-LFS pointer: it stands for a file of {int(pointer[1]):,} bytes that was not fetched",
            "fetch it: git lfs pull (or download the file itself from the page of the repository)",
        )
    if _PAGE.match(start):
        return Kind(
            "a web page, saved under the name of a model",
            "download the file itself: the page asked for a login, a confirmation or another link",
        )
    if _looks_like_onnx(start):
        return Kind("an ONNX model", "give it the ending .onnx")
    if start and not start.strip(b"\0"):
        return Kind("a file of zeros, as an interrupted download leaves", _AGAIN)
    return _text(start)


def of_zip(names: Sequence[str]) -> Kind:
    """The kind of a zip archive with these entries, which is no checkpoint."""
    files = [name for name in names if not name.endswith("/")]
    if files and all(name.endswith(".npy") for name in files):
        return Kind("an archive of numpy arrays (.npz)", "if these are data, give them with --data")
    if any(name.rpartition("/")[2] == "model.weights.h5" for name in files):
        return Kind("a Keras model (.keras)", "convert the network to ONNX with tf2onnx")
    shown = ", ".join(repr(name[:60]) for name in files[:3]) or "nothing"
    return Kind(f"a zip archive that holds {shown}" + (", ..." if len(files) > 3 else ""), _UNPACK)


def _looks_like_onnx(start: bytes) -> bool:
    """The version of the representation, then the name of the producer, another name, or the graph."""
    return (
        len(start) > 8
        and start[0] == 0x08
        and 1 <= start[1] <= 32
        and start[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)
    )


def _text(start: bytes) -> Kind | None:
    try:
        text = start.decode("utf-8") if len(start) < START else start[: START - 4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return None
    if not text or not all(char.isprintable() or char in "\t\r\n" for char in text):
        return None
    first = text.strip().splitlines()[0][:60] if text.strip() else ""
    return Kind(f"a text file, which begins {first!r}" if first else "a text file of blanks", _AGAIN)
