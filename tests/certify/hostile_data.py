"""Hostile data files: arrays and images that want to run code or to exhaust memory."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from tests.certify.hostile_tools import MARKER, Payload, archive, maker, patch_directory


def npy(header: dict, body: bytes = b"") -> bytes:
    text = repr(header).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npz(path: Path, compress=zipfile.ZIP_STORED, **parts: bytes) -> None:
    with zipfile.ZipFile(path, "w", compress) as target:
        for name, content in parts.items():
            target.writestr(f"{name}.npy", content)


LABELS = npy({"descr": "<i8", "fortran_order": False, "shape": (2,)}, bytes(16))


@maker("objects.npz")
def _(path):
    np.savez(path, x=np.array([Payload(path.parent), None], dtype=object), y=np.zeros(2, np.int64))


@maker("objects_in_a_record.npz")
def _(path):
    evil = npy(
        {"descr": [("a", "|O")], "fortran_order": False, "shape": (1,)}, pickle.dumps([Payload(path.parent)])
    )
    npz(path, x=evil, y=LABELS)


@maker("code_in_the_header.npz")
def _(path):
    evil = (
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", 80)
        + f"__import__('os').system('touch {path.parent / MARKER}')".encode()
    )
    npz(path, x=evil.ljust(200), y=LABELS)


@maker("bomb.npz")
def _(path):
    body = npy({"descr": "|u1", "fortran_order": False, "shape": (2**27,)}, bytes(2**27))
    npz(path, zipfile.ZIP_DEFLATED, x=body, y=LABELS)


@maker("shape_is_a_lie.npz")
def _(path):
    npz(path, x=npy({"descr": "<f4", "fortran_order": False, "shape": (2, 2**34)}, bytes(64)), y=LABELS)


@maker("negative_shape.npz")
def _(path):
    npz(path, x=npy({"descr": "<f4", "fortran_order": False, "shape": (-2, -2)}, bytes(64)), y=LABELS)


@maker("wide_text_type.npz")
def _(path):
    npz(path, x=npy({"descr": f"<U{2**27}", "fortran_order": False, "shape": (2,)}, bytes(64)), y=LABELS)


@maker("encrypted.npz")
def _(path):
    npz(path, x=LABELS, y=LABELS)
    patch_directory(path, b"x.npy", 8, struct.pack("<H", 1))


@maker("dimensions_are_a_lie.gz")
def _(path):
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**17, 28, 28) + bytes(784)))


@maker("product_of_dimensions_overflows.gz")
def _(path):
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)))


@maker("more_than_declared.gz")
def _(path):
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 1, 28, 28) + bytes(2**27), 1))


# ---- arrays, tables and tensors by themselves ---------------------------------------------------------


@maker("objects.npy")
def _(path):
    np.save(path, np.array([Payload(path.parent), None], dtype=object), allow_pickle=True)


@maker("shape_is_a_lie.npy")
def _(path):
    path.write_bytes(npy({"descr": "<f4", "fortran_order": False, "shape": (2, 2**34)}, bytes(64)))


@maker("wide_text_type.npy")
def _(path):
    path.write_bytes(npy({"descr": f"<U{2**27}", "fortran_order": False, "shape": (2,)}, bytes(64)))


@maker("code_in_the_header.npy")
def _(path):
    evil = f"__import__('os').system('touch {path.parent / MARKER}')".encode().ljust(118)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(evil)) + evil)


@maker("header_without_end.npy")
def _(path):
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, [".ljust(118)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))


@maker("million_columns.csv")
def _(path):
    path.write_text(
        ",".join(f"c{i}" for i in range(10**6)) + "\n" + ",".join("1" for _ in range(10**6)) + "\n"
    )


@maker("line_without_end.csv")
def _(path):
    path.write_bytes(b"a,label," + b"x" * 2**25)


@maker("quotes_without_end.csv")
def _(path):
    path.write_bytes(b'a,label\n"' + b'1,""' * 2**20)


@maker("data_payload.pt")
def _(path):
    path.write_bytes(pickle.dumps({"x": Payload(path.parent)}, protocol=2))


@maker("data_payload_beside.pt")
def _(path):
    import torch

    torch.save({"x": torch.zeros(2, 2), "y": Payload(path.parent)}, path)


@maker("data_stride_zero.pt")
def _(path):
    import torch

    torch.save((torch.zeros(1, 1).expand(2**17, 2**17), torch.zeros(2)), path)


@maker("data_nested.pt")
def _(path):
    archive(path, b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".")
