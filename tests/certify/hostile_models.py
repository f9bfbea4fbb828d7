"""Hostile model files: some want to run code, some want memory or time."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from tests.certify.hostile_tools import (
    MARKER,
    Payload,
    archive,
    local_offset,
    maker,
    patch_directory,
    state,
    tensor_pickle,
)  # fmt: skip


def safetensors(path: Path, header: bytes | dict, body: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


# ---- model files that want to run code -------------------------------------------------------------


@maker("bare_pickle.pt")
def _(path):
    path.write_bytes(pickle.dumps({"w": Payload(path.parent)}, protocol=2))


@maker("bare_pickle_named.safetensors")
def _(path):
    path.write_bytes(pickle.dumps(Payload(path.parent), protocol=4))


@maker("old_format.pt")
def _(path):
    torch.save({"w": Payload(path.parent)}, path, _use_new_zipfile_serialization=False)


@maker("payload_in_archive.pt")
def _(path):
    archive(path, pickle.dumps({"w": Payload(path.parent)}, protocol=2))


@maker("payload_protocol_4.pt")
def _(path):
    archive(path, pickle.dumps({"w": Payload(path.parent)}, protocol=4))


@maker("payload_as_hook.pt")
def _(path):
    good = tensor_pickle(count=4)
    evil = pickle.dumps(Payload(path.parent), protocol=2)[2:-1]
    archive(path, good.replace(b"ccollections\nOrderedDict\n)R", evil), records={"data/0": bytes(16)})


@maker("payload_inst_opcode.pt")
def _(path):
    command = f"touch '{path.parent / MARKER}'"
    archive(path, b"(S" + repr(command).encode() + b"\nios\nsystem\n.")


@maker("payload_build_setstate.pt")
def _(path):
    archive(path, b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}X\x01\x00\x00\x00aK\x01sb.")


@maker("payload_nested_load.pt")
def _(path):
    inner = path.parent / "bare_pickle.pt"
    archive(
        path,
        b"\x80\x02ctorch\nload\nX" + struct.pack("<I", len(str(inner))) + str(inner).encode() + b"\x85R.",
    )


@maker("pickled_module.pt")
def _(path):
    torch.save(nn.Linear(2, 2), path)


@maker("second_program.pt")
def _(path):
    evil = pickle.dumps({"w": Payload(path.parent)}, protocol=2)
    archive(path, records={"../archive/data.pkl": evil})


@maker("two_entries_of_one_name.pt")
def _(path):
    archive(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as target:
        warnings.simplefilter("ignore")
        target.writestr("archive/data.pkl", pickle.dumps({"w": Payload(path.parent)}, protocol=2))


@maker("archive_behind_another.pt")
def _(path):
    archive(path, pickle.dumps({"w": Payload(path.parent)}, protocol=2))
    first = path.read_bytes()
    archive(path)
    path.write_bytes(first + path.read_bytes())


@maker("archive_in_comment.pt")
def _(path):
    archive(path, pickle.dumps({"w": Payload(path.parent)}, protocol=2))
    inner = path.read_bytes()
    archive(path)
    with zipfile.ZipFile(path, "a") as target:
        target.comment = inner[-60000:]


@maker("torchscript.pt")
def _(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 3)).save(str(path))


@maker("torchscript_disguised.safetensors")
def _(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 3)).save(str(path))


@maker("exported_program.pt2")
def _(path):
    evil = pickle.dumps({"w": Payload(path.parent)}, protocol=2)
    with zipfile.ZipFile(path, "w") as target:
        for name, content in {
            "archive_format": b"pt2", "models/model.json": b"{}", "data/sample_inputs/model.pt": evil,
        }.items():  # fmt: skip
            target.writestr(f"x/{name}", content)


@maker("header_names_a_module.pt")
def _(path):
    from certify.checkpoints import Header, save

    (path.parent / "evil_module.py").write_text(f"open({str(path.parent / MARKER)!r}, 'w').close()\n")
    save(path, state(), Header("evil_module:net", {}, 3, (2,), 0.0, 1.0, None))


# ---- model files that want memory or time ----------------------------------------------------------


@maker("deflate_bomb.pt")
def _(path):
    archive(path, tensor_pickle(count=2**25, shape=(2**25,)), records={"data/0": bytes(2**27)},
            compress=zipfile.ZIP_DEFLATED)  # fmt: skip


@maker("entry_claims_a_terabyte.pt")
def _(path):
    archive(path, tensor_pickle(count=4), records={"data/0": bytes(16)})
    patch_directory(path, b"archive/data/0", 24, struct.pack("<I", 2**31))


@maker("overlapping_entries.pt")
def _(path):
    archive(
        path,
        tensor_pickle(count=2**18, shape=(2**18,)),
        records={"data/0": bytes(2**20), "data/1": bytes(2**20)},
    )
    # The second entry is made to start where the first does.
    patch_directory(path, b"archive/data/1", 42, struct.pack("<I", local_offset(path, b"archive/data/0")))


@maker("giant_table_of_contents.pt")
def _(path):
    archive(path)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = struct.pack("<I", 2**31)
    path.write_bytes(content)


@maker("stride_zero.pt")
def _(path):
    archive(path, tensor_pickle(count=4, shape=(2**34,), strides=(0,)), records={"data/0": bytes(16)})


@maker("stride_zero_by_torch.pt")
def _(path):
    torch.save({"body.weight": torch.zeros(1, 1).expand(2**17, 2**17)}, path)


@maker("storage_count_is_a_lie.pt")
def _(path):
    archive(path, tensor_pickle(count=2**33, shape=(2**33,)), records={"data/0": bytes(16)})


@maker("view_beyond_its_storage.pt")
def _(path):
    archive(path, tensor_pickle(count=4, offset=3, shape=(2,), strides=(1,)), records={"data/0": bytes(16)})


@maker("negative_stride.pt")
def _(path):
    archive(path, tensor_pickle(count=4, shape=(4,), strides=(-1,)), records={"data/0": bytes(16)})


@maker("negative_storage.pt")
def _(path):
    archive(path, tensor_pickle(count=-4), records={"data/0": bytes(16)})


@maker("overlapping_views.pt")
def _(path):
    base = torch.zeros(2**18)
    torch.save({f"w{i}": base[i : 2**17 + i] for i in range(200)}, path)


@maker("missing_storage.pt")
def _(path):
    archive(path, tensor_pickle(count=4, key="77"))


@maker("memo_bomb.pt")
def _(path):
    archive(path, b"\x80\x02}r\xff\xff\xff\xffr\xff\xff\xff\x7f.")


@maker("million_dictionaries.pt")
def _(path):
    archive(path, b"\x80\x02(" + b"}" * 2**22 + b"t.")


@maker("deep_nesting.pt")
def _(path):
    archive(path, b"\x80\x02}" + b")" + b"\x85" * 45 * 10**4 + b"K\x01s.")


@maker("deep_value.pt")
def _(path):
    archive(path, b"\x80\x02}X\x01\x00\x00\x00w" + b")" + b"\x85" * 45 * 10**4 + b"s.")


@maker("list_of_itself.pt")
def _(path):
    archive(path, b"\x80\x02}q\x00X\x01\x00\x00\x00w]q\x01h\x01ah\x00as.")


@maker("text_bomb.pt")
def _(path):
    archive(path, b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 64 + b".")


@maker("giant_by_arguments.pt")
def _(path):
    from certify.checkpoints import Header, save

    save(path, {"w": torch.zeros(4)}, Header("mlp", {"width": 2**16, "depth": 3}, 3, (2,), 0.0, 1.0, None))


@maker("header_length_is_a_lie.safetensors")
def _(path):
    safetensors(path, {}, length=2**62)


@maker("huge_header.safetensors")
def _(path):
    safetensors(path, b'{"a":"' + b" " * 2**25 + b'"}')


@maker("deep_header.safetensors")
def _(path):
    safetensors(path, b"[" * 10**6 + b"]" * 10**6)


@maker("shape_is_a_lie.safetensors")
def _(path):
    safetensors(path, {"w": {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 16]}}, bytes(16))


@maker("overlapping_tensors.safetensors")
def _(path):
    entry = {"dtype": "F32", "shape": [2**18], "data_offsets": [0, 2**20]}
    safetensors(path, {f"w{i}": entry for i in range(500)}, bytes(2**20))


@maker("offsets_beyond_the_file.safetensors")
def _(path):
    safetensors(path, {"w": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}, bytes(16))


@maker("unknown_type.safetensors")
def _(path):
    safetensors(path, {"w": {"dtype": "OBJ", "shape": [4], "data_offsets": [0, 16]}}, bytes(16))


@maker("negative_shape.safetensors")
def _(path):
    safetensors(path, {"w": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}, bytes(16))
