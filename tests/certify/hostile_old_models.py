"""Hostile model files of the formats and names that only old torch and training scripts write."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict

import torch

from tests.certify.hostile_tools import Payload, archive, maker, state, tensor_pickle

MAGIC = 0x1950A86A20F9469CFC6C
FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def old(path, content: bytes, keys: list, body: bytes = b"", *, facts=None, version=1001) -> None:
    """A file of torch before 1.6 around these pickles."""
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, version, FACTS if facts is None else facts)]
    path.write_bytes(b"".join(parts) + content + pickle.dumps(keys, protocol=2) + body)


def storage(count: int, content: bytes) -> bytes:
    return struct.pack("<q", count) + content


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


# ---- that want to run code ----------------------------------------------------------------------------


@maker("old_payload_in_facts.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(4, bytes(16)), facts=Payload(path.parent))


@maker("old_payload_in_keys.th")
def _(path):
    old(path, tensor_pickle(count=4), [Payload(path.parent)], storage(4, bytes(16)))


@maker("old_payload_beside_weights.th")
def _(path):
    content = {"state_dict": state(), "epoch": Payload(path.parent)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


@maker("payload_beside_weights.pt")
def _(path):
    torch.save({"state_dict": state(), "epoch": Payload(path.parent)}, path)


@maker("payload_in_a_namespace.pt")
def _(path):
    import argparse

    torch.save({"state_dict": state(), "args": argparse.Namespace(lr=Payload(path.parent))}, path)


@maker("payload_by_name_on_the_stack.pt")
def _(path):
    command = text(f"touch '{path.parent / 'ran'}'")
    archive(path, b"\x80\x04" + text("posix") + text("system") + b"\x93" + command + b"\x85R.")


@maker("eval_of_builtins.pt")
def _(path):
    command = text(f"open({str(path.parent / 'ran')!r}, 'w')")
    archive(path, b"\x80\x02cbuiltins\neval\n" + command + b"\x85R.")


@maker("getattr_of_builtins.pt")
def _(path):
    archive(path, b"\x80\x02cbuiltins\ngetattr\nctorch\nnn\n" + text("Module") + b"\x86R.")


@maker("function_of_code.pt")
def _(path):
    archive(path, b"\x80\x02ctypes\nFunctionType\n)R.")


@maker("call_of_a_library.pt")
def _(path):
    archive(path, b"\x80\x02}" + text("x") + b"cdistutils.spawn\nspawn\n" + text("touch ran") + b"\x85Rs.")


@maker("call_of_torch.pt")
def _(path):
    archive(path, b"\x80\x02}" + text("x") + b"ctorch.utils.data\nget_worker_info\n)Rs.")


@maker("old_module_with_source.th")
def _(path):
    with open(path, "wb") as file:
        torch.save(torch.nn.Linear(2, 2), file, _use_new_zipfile_serialization=False)


# ---- that want memory or time, or lie -----------------------------------------------------------------


@maker("old_count_is_a_lie.th")
def _(path):
    old(path, tensor_pickle(count=2**33, shape=(2**33,)), ["0"], storage(2**33, bytes(16)))


@maker("old_other_count.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(2**40, bytes(16)))


@maker("old_negative_count.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(-4, bytes(16)))


@maker("old_stride_zero.th")
def _(path):
    old(path, tensor_pickle(count=4, shape=(2**34,), strides=(0,)), ["0"], storage(4, bytes(16)))


@maker("old_view_beyond_its_storage.th")
def _(path):
    old(path, tensor_pickle(count=4, offset=3, shape=(2,), strides=(1,)), ["0"], storage(4, bytes(16)))


@maker("old_storage_is_missing.th")
def _(path):
    old(path, tensor_pickle(count=4), [])


@maker("old_bytes_behind.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(4, bytes(16)) + bytes(2**20))


@maker("old_storage_in_two_ways.th")
def _(path):
    one, two = tensor_pickle(count=4), tensor_pickle(count=2, kind="DoubleStorage", shape=(2,))
    both = b"\x80\x02]" + one[2:-1] + b"a" + two[2:-1] + b"a."
    old(path, both, ["0"], storage(4, bytes(16)))


@maker("old_overlapping_views.th")
def _(path):
    base = torch.zeros(2**18)
    views = OrderedDict((f"w{i}", base[i : 2**17 + i]) for i in range(200))
    torch.save(views, path, _use_new_zipfile_serialization=False)


@maker("old_million_keys.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"] * 10**6, storage(4, bytes(16)))


@maker("old_other_byte_order.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(4, bytes(16)), facts=FACTS | {"little_endian": False})


@maker("old_other_version.th")
def _(path):
    old(path, tensor_pickle(count=4), ["0"], storage(4, bytes(16)), version=1002)


@maker("old_without_end.th")
def _(path):
    path.write_bytes(pickle.dumps(MAGIC, protocol=2) + b"\x80\x02(" + b"}" * 2**23)


@maker("wide_bytes.pt")
def _(path):
    archive(path, b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + bytes(64) + b".")


@maker("thousand_networks.pt")
def _(path):
    """Many containers with many names: looking for a state dict in them must come to an end."""
    one = torch.zeros(1)
    rows = {f"n{i}.{name}": one for i in range(400) for name in ("head.weight", "body.weight", "head.bias")}
    torch.save({f"k{i}": {f"l{j}": dict(rows) for j in range(3)} for i in range(20)}, path)
