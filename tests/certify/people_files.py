"""Model files as training scripts, hubs and browsers leave them: each a function that writes one."""

from __future__ import annotations

import argparse
import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.certify.own_networks import Pixels

NET = "tests.certify.own_networks:Pixels"
WRAPPED = "tests.certify.own_networks:wrapped_pixels"
BEHIND_A_NORM = "tests.certify.own_networks:pixels_behind_a_norm"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = Pixels()
    net(torch.rand(8, 3, 8, 8))  # moves the running statistics
    return net.eval()


def state(prefix: str = "", seed: int = 0) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in network(seed).state_dict().items()}


def optimizer() -> dict[str, Any]:
    net = network()
    steps = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    steps.step()
    return steps.state_dict()


class Config(dict):
    """A dictionary of a training script's own class."""


@dataclass
class TrainingArgs:
    lr: float = 0.1


@dataclass(frozen=True)
class Row:
    """One form: how it is written, what is said when it loads, or why it is refused."""

    write: Callable[[Path], Any]
    said: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    arch: str = NET
    entry: str | None = None
    ending: str = ".pt"
    seed: int = 0
    warned: bool = False


def saves(content: Callable[[], Any], **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content(), path, **options)


def writes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)  # type: ignore[return-value]


def legacy(content: Callable[[], Any], **options: Any) -> Callable[[Path], None]:
    return saves(content, _use_new_zipfile_serialization=False, **options)


def saved_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    return buffer.getvalue()


def safetensors(path: Path, content: dict[str, torch.Tensor] | None = None) -> None:
    from safetensors.torch import save

    path.write_bytes(save(content or state()))


def with_pointer_keys(path: Path) -> None:
    """Torch 1.6 to 1.10 named its storages by their address."""
    with zipfile.ZipFile(io.BytesIO(saved_bytes())) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.namelist():
            content, short = source.read(entry), entry.rpartition("/")[2]
            if entry.endswith("data.pkl"):
                keys = [n.rpartition("/")[2] for n in source.namelist() if "/data/" in n]
                for key in sorted(keys, key=len, reverse=True):
                    old = b"X" + len(key).to_bytes(4, "little") + key.encode() + b"q"
                    new = f"9402537{int(key):07d}"
                    content = content.replace(
                        old, b"X" + len(new).to_bytes(4, "little") + new.encode() + b"q"
                    )
            place = f"archive/data/9402537{int(short):07d}" if "/data/" in entry else f"archive/{short}"
            if "serialization_id" not in entry:
                target.writestr(place, content)


def without_checksums(path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), path)
    finally:
        torch.serialization.set_crc32_options(True)


def zipped(path: Path, name: str = "weights/model.pth") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(name, saved_bytes())


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as target:
        entry = tarfile.TarInfo("model.pth")
        entry.size = len(saved_bytes())
        target.addfile(entry, io.BytesIO(saved_bytes()))


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network(), torch.rand(1, 3, 8, 8)).save(str(path))


def onnx_bytes() -> bytes:
    # ir_version 9, producer "pytorch", version "2.5", and so on: an ONNX file by its fields.
    return b"\x08\x09\x12\x07pytorch\x1a\x032.5:" + bytes(200)


def huggingface(path: Path, *, parts: int = 1) -> None:
    from safetensors.torch import save_file

    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    items = list(state().items())
    if parts == 1:
        save_file(dict(items), path / "model.safetensors")
        return
    places = {}
    for k in range(parts):
        part = dict(items[k::parts])
        name = f"model-{k + 1:05d}-of-{parts:05d}.safetensors"
        save_file(part, path / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def bin_folder(path: Path) -> None:
    path.mkdir()
    torch.save(state(), path / "pytorch_model.bin")


def lightning(prefix: str, **more: Any) -> dict[str, Any]:
    return {
        "epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.1", "state_dict": state(prefix),
        "loops": {}, "callbacks": {}, "optimizer_states": [optimizer()], "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1}, **more,
    }  # fmt: skip


def madry() -> dict[str, Any]:
    shared = state()
    return {
        "model": {
            **{f"module.model.{k}": v for k, v in shared.items()},
            **{f"module.attacker.model.{k}": v for k, v in shared.items()},
            "module.normalizer.new_mean": torch.tensor([0.49, 0.48, 0.45]).reshape(3, 1, 1),
            "module.normalizer.new_std": torch.tensor([0.2, 0.2, 0.2]).reshape(3, 1, 1),
            "module.attacker.normalize.new_mean": torch.zeros(3, 1, 1),
        },
        "epoch": 190,
    }


def beside_weights() -> dict[str, Any]:
    """Everything that a training script might leave beside the weights."""
    return {
        "state_dict": state(),
        "best_acc": np.float64(91.2),
        "history": np.arange(5.0),
        "kind": np.dtype("f4"),
        "args": argparse.Namespace(lr=0.1, data=Path("/data")),
        "config": Config(width=8),
        "train": TrainingArgs(),
        "space": types.SimpleNamespace(a=1),
        "counts": collections.Counter("abca"),
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "default": collections.defaultdict(list, a=[1]),
        "queue": collections.deque([1]),
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "seed": 2**70,
        "act": nn.ReLU,
        "loss": nn.CrossEntropyLoss(),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "complex": 1 + 2j,
        (1, 2): "a tuple for a key",
        "nothing": None,
        "flag": True,
        "optimizer": optimizer(),
    }


def half(kind: torch.dtype) -> dict[str, torch.Tensor]:
    return {k: v.to(kind) if v.is_floating_point() else v for k, v in state().items()}


def without(*endings: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state().items() if not k.endswith(endings)}


LOADS = {
    "state dict": Row(saves(state)),
    "named parameters and buffers": Row(
        saves(lambda: dict(network().named_parameters()) | dict(network().named_buffers()))
    ),
    **{
        f"under {key}": Row(
            saves(lambda key=key: {key: state(), "epoch": 3}), (f"entry '{key}'", "epoch (3)")
        )
        for key in (
            "state_dict",
            "model",
            "net",
            "weights",
            "model_state_dict",
            "params",
            "network",
            "classifier",
        )
    },
    "only an average": Row(
        saves(lambda: {"ema_model_state_dict": state()}), ("entry 'ema_model_state_dict'",)
    ),
    **{
        f"nested {' '.join(path)}": Row(
            saves(lambda path=path: _nested(path, state())), (f"entry '{'/'.join(path)}'",)
        )
        for path in (
            ("model", "state_dict"),
            ("checkpoint", "model", "net"),
            ("state", "ema"),
            ("a", "b", "c", "weights"),
        )
    },
    "in a list": Row(saves(lambda: {"models": [state()]}), ("entry 'models/0'",)),
    **{
        f"prefix {prefix}": Row(saves(lambda prefix=prefix: state(prefix)), (f"prefix '{prefix}' removed",))
        for prefix in (
            "module.",
            "model.",
            "net.",
            "_orig_mod.",
            "module._orig_mod.",
            "encoder.",
            "backbone.",
            "network.",
            "module.net.model.",
            "1.",
            "my_own_thing.v2.",
        )
    },
    "lightning": Row(
        saves(lambda: lightning("model.")), ("entry 'state_dict', prefix 'model.'",), ending=".ckpt"
    ),
    "lightning with a namespace": Row(
        saves(lambda: lightning("net.", hyper_parameters=argparse.Namespace(lr=0.1))),
        ("argparse.Namespace object",),
        ending=".ckpt",
    ),
    "lightning with a criterion": Row(
        saves(lambda: {"state_dict": {**state("model."), "criterion.weight": torch.ones(10)}}),
        ("prefix 'model.' removed", "criterion (weights)"),
    ),
    "criterion beside bare names": Row(
        saves(lambda: {**state(), "criterion.weight": torch.ones(10)}), ("criterion (weights)",)
    ),
    "attacker and normaliser": Row(
        saves(madry), ("prefix 'module.model.' removed", "--mean", "0.49, 0.48, 0.45"), warned=True
    ),
    "discriminator beside": Row(
        saves(lambda: {**state("gen."), "disc.weight": torch.ones(4)}), ("left out: disc",), warned=True
    ),
    "raw and average": Row(
        saves(lambda: {"state_dict": state(), "state_dict_ema": state(seed=1)}),
        ("entry 'state_dict'", "--entry state_dict_ema"),
        warned=True,
    ),
    "average chosen": Row(
        saves(lambda: {"model": state(), "ema": state(seed=1)}),
        ("entry 'ema'",),
        entry="ema",
        seed=1,
    ),
    "average by prefix": Row(
        saves(lambda: {**state("net."), **state("net_ema.", seed=1)}),
        ("prefix 'net.'", "--entry net_ema"),
        warned=True,
    ),
    "average inside": Row(
        saves(lambda: {"model": {"raw": state(), "ema": state(seed=1)}}),
        ("entry 'model/ema'",),
        entry="model/ema",
        seed=1,
    ),
    "teacher chosen": Row(
        saves(lambda: {"student": state(), "teacher": state(seed=1)}),
        ("entry 'teacher'",),
        entry="teacher",
        seed=1,
    ),
    "teacher chosen by prefix": Row(
        saves(lambda: {"state_dict": {**state("student."), **state("teacher.", seed=1)}}),
        ("prefix 'teacher.'",),
        entry="state_dict/teacher",
        seed=1,
    ),
    "the same weights twice": Row(saves(lambda: {"last": state(), "best": state()}), ("entry 'last'",)),
    "without batch counters": Row(
        saves(lambda: without("num_batches_tracked")), ("1 batch counters absent",)
    ),
    "float64": Row(saves(lambda: half(torch.float64)), ("float64 weights rounded to float32",)),
    "float16": Row(saves(lambda: half(torch.float16)), ("float16 weights widened to float32",), seed=-1),
    "bfloat16": Row(saves(lambda: half(torch.bfloat16)), ("bfloat16 weights widened to float32",), seed=-1),
    "inside certify.wrap": Row(saves(state), ("inside certify.wrap",), arch=WRAPPED),
    "inside certify.wrap, parallel": Row(
        saves(lambda: {"net": state("module.")}),
        ("inside certify.wrap", "prefix 'module.' removed"),
        arch=WRAPPED,
    ),
    "the network has a prefix more": Row(saves(state), ("prefix 'inner.' added",), arch=BEHIND_A_NORM),
    "both have a prefix": Row(
        saves(lambda: state("module.")),
        ("prefix 'module.' removed", "prefix 'inner.' added"),
        arch=BEHIND_A_NORM,
    ),
    "everything beside": Row(
        saves(beside_weights),
        (
            "best_acc (a numpy number)",
            "args (a argparse.Namespace object)",
            "entry 'state_dict'",
            "config (a tests.certify.people_files.Config object)",
            "history (a numpy array)",
        ),
    ),
    "pickle protocol 4": Row(saves(beside_weights, pickle_protocol=4), ("entry 'state_dict'",)),
    "pickle protocol 5": Row(saves(beside_weights, pickle_protocol=5), ("entry 'state_dict'",)),
    "torch before 1.6": Row(legacy(state), ("torch before 1.6",), ending=".th"),
    "published .th": Row(
        legacy(lambda: {"state_dict": state("module."), "best_prec1": 91.7}),
        ("entry 'state_dict', prefix 'module.'", "best_prec1 (91.7)", "torch before 1.6"),
        ending=".th",
    ),
    "published .pth.tar": Row(
        legacy(
            lambda: {
                "epoch": 1,
                "arch": "resnet",
                "state_dict": state("module."),
                "best": torch.tensor(9.0),
                "optimizer": optimizer(),
            }
        ),
        ("optimizer (a dict of 2)",),
        ending=".pth.tar",
    ),
    "torch before 1.6 with everything": Row(
        legacy(lambda: {**beside_weights(), "loss": None}), ("best_acc",), ending=".th"
    ),
    "storages named by address": Row(with_pointer_keys),
    "without checksums": Row(without_checksums),
    "safetensors": Row(safetensors, ending=".safetensors"),
    "safetensors renamed": Row(safetensors),
    "safetensors with a prefix": Row(
        lambda path: safetensors(path, {**state("vit."), "pooler.weight": torch.ones(2)}),
        ("prefix 'vit.' removed", "left out: pooler"),
        ending=".safetensors",
        warned=True,
    ),
    "Hugging Face folder": Row(huggingface, ending=""),
    "Hugging Face folder of parts": Row(lambda path: huggingface(path, parts=3), ending=""),
    "Hugging Face index": Row(
        lambda path: huggingface(path.parent / "parts", parts=2),
        ending="/../parts/model.safetensors.index.json",
    ),
    "folder with a .bin": Row(bin_folder, ending=""),
    "any ending": Row(saves(state), ending=".weights"),
}


def _nested(path: tuple[str, ...], content: Any) -> Any:
    for key in reversed(path):
        content = {key: content, "epoch": 1}
    return content


REFUSED = {
    "student and teacher": Row(
        saves(lambda: {"student": state(), "teacher": state(seed=1)}),
        refused=("ArchitectureMismatch", "several networks that fit", "student, teacher", "--entry student"),
    ),
    "two by prefix": Row(
        saves(lambda: {**state("a."), **state("b.", seed=1)}),
        refused=("ArchitectureMismatch", "a, b", "--entry a"),
    ),
    "best and last": Row(
        saves(lambda: {"state_dict": state(), "best_state_dict": state(seed=1)}),
        refused=("ArchitectureMismatch", "--entry"),
    ),
    "entry that is not there": Row(
        saves(lambda: {"net": state()}), entry="ema", refused=("InvalidSetting", "no entry 'ema'", "net")
    ),
    "entry that does not fit": Row(
        saves(lambda: {"net": state(), "other": {"w": torch.ones(2)}}),
        entry="other",
        refused=("ArchitectureMismatch", "its entry 'other'"),
    ),
    "a layer more": Row(
        saves(lambda: {**state(), "layer5.weight": torch.ones(2)}),
        refused=("layer5.weight (2,) is not part",),
    ),
    "a layer more behind a prefix": Row(
        saves(lambda: {**state("module."), "module.aux.weight": torch.ones(2)}),
        refused=("names without 'module.'", "aux.weight (2,) is not part"),
    ),
    "a weight missing": Row(saves(lambda: without("fc.bias")), refused=("fc.bias (10,) is missing",)),
    "statistics missing": Row(
        saves(lambda: without("running_mean")), refused=("bn.running_mean (8,) is missing",)
    ),
    "another shape": Row(
        saves(lambda: {**state(), "fc.bias": torch.ones(11)}),
        refused=("fc.bias is (11,) in the file, (10,)",),
    ),
    "whole numbers for weights": Row(
        saves(lambda: {**state(), "fc.bias": torch.ones(10, dtype=torch.int32)}),
        refused=("fc.bias is torch.int32 in the file",),
    ),
    "quantized": Row(
        saves(lambda: {**state(), "fc.bias": torch.quantize_per_tensor(torch.ones(10), 0.1, 0, torch.qint8)}),
        refused=("fc.bias is a quantized tensor",),
    ),
    "too large for float32": Row(
        saves(lambda: {**half(torch.float64), "fc.bias": torch.full((10,), 1e300, dtype=torch.float64)}),
        refused=("InvalidModel", "'fc.bias' has values beyond torch.float32"),
    ),
    "not a number": Row(
        saves(lambda: {**state(), "fc.bias": torch.full((10,), torch.nan)}),
        refused=("InvalidModel", "fc.bias"),
    ),
    "a whole pickled network": Row(
        saves(network),
        refused=("UntrustedFile", "tests.certify.own_networks.Pixels object", "state_dict()"),
    ),
    "a pickled network under a name": Row(
        saves(lambda: {"model": network(), "epoch": 1}),
        refused=("UntrustedFile", "'model'", "Pixels object"),
    ),
    "a pickled network of the old format": Row(legacy(network), refused=("UntrustedFile", "Pixels object")),
    "a pickle of scikit-learn": Row(
        lambda path: path.write_bytes(pickle.dumps(_forest())),
        refused=("UntrustedFile", "sklearn", "bare pickle"),
        ending=".pkl",
    ),
    "a plain pickle": Row(
        lambda path: path.write_bytes(pickle.dumps({"a": [1.0, 2.0]}, protocol=2)),
        refused=("UntrustedFile", "a dictionary of 'a'"),
    ),
    "numbers only": Row(saves(lambda: {"epoch": 3, "acc": 0.5}), refused=("UnreadableFile", "no state dict")),
    "a web page": Row(
        writes(b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"),
        refused=("UnreadableFile", "a web page"),
    ),
    "a web page behind blanks": Row(
        writes(b"\xef\xbb\xbf\n  <!-- hi -->\n<HTML lang='de'>"), refused=("a web page",)
    ),
    "an XML page": Row(writes(b'<?xml version="1.0"?>\n<html xmlns="x">'), refused=("a web page",)),
    "a Git-LFS pointer": Row(
        writes(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"),
        refused=("UnreadableFile", "Git-LFS pointer", "12,345 bytes", "git lfs pull"),
    ),
    "gzip": Row(
        lambda path: path.write_bytes(gzip.compress(saved_bytes())), refused=("a gzip archive", "unpack")
    ),
    "bzip2": Row(lambda path: path.write_bytes(bz2.compress(saved_bytes())), refused=("a bzip2 archive",)),
    "xz": Row(lambda path: path.write_bytes(lzma.compress(saved_bytes())), refused=("an xz archive",)),
    "zip": Row(zipped, refused=("a zip archive that holds 'weights/model.pth'", "unpack")),
    "Keras": Row(lambda path: zipped(path, "model.weights.h5"), refused=("a Keras model",)),
    "tar": Row(tarred, refused=("a tar archive", "unpack")),
    "7z": Row(writes(b"7z\xbc\xaf\x27\x1c" + bytes(40)), refused=("a 7z archive",)),
    "HDF5": Row(writes(b"\x89HDF\r\n\x1a\n" + bytes(600)), refused=("an HDF5 file", "ONNX")),
    "HDF5 by its ending": Row(
        writes(b"\x89HDF\r\n\x1a\n" + bytes(600)), refused=("an HDF5 file",), ending=".h5"
    ),
    "ONNX named .pt": Row(writes(onnx_bytes()), refused=("an ONNX model", ".onnx")),
    "TorchScript": Row(torchscript, refused=("UntrustedFile", "TorchScript", "--trust-model-file")),
    "numpy arrays": Row(lambda path: path.write_bytes(_npz()), refused=("numpy arrays (.npz)", "--data")),
    "one numpy array": Row(writes(b"\x93NUMPY\x01\x00" + bytes(120)), refused=("a numpy array (.npy)",)),
    "text": Row(writes(b"404: Not Found\n"), refused=("a text file", "'404: Not Found'")),
    "json": Row(writes(b'{"message": "Not Found"}'), refused=("a text file",)),
    "zeros": Row(writes(bytes(4096)), refused=("a file of zeros", "again")),
    "noise": Row(writes(bytes(range(129, 256)) * 8), refused=("81828384",)),
    "empty": Row(writes(b""), refused=("it is empty",)),
    "cut off": Row(lambda path: path.write_bytes(saved_bytes()[:-200]), refused=("cut off",)),
    "old format cut off": Row(lambda path: _cut_legacy(path), refused=("cut off",), ending=".th"),
    "a picture": Row(writes(b"\x89PNG\r\n\x1a\n" + bytes(30)), refused=("a PNG picture", "--data")),
    "a program": Row(writes(b"\x7fELF" + bytes(60)), refused=("a program",)),
    "a folder of nothing": Row(
        lambda path: path.mkdir(), refused=("not a model folder", "model.safetensors"), ending=""
    ),
    "a folder that lacks a part": Row(lambda path: _lacking(path), refused=("no such file",), ending=""),
    "an index that points elsewhere": Row(
        lambda path: _elsewhere(path), refused=("UntrustedFile", "own folder"), ending=""
    ),
    "a TensorFlow Lite model": Row(writes(b"\x1c\0\0\0TFL3" + bytes(50)), refused=("TensorFlow Lite",)),
}


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(2, random_state=0).fit(np.eye(4), [0, 1, 0, 1])


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3), y=np.zeros(3))
    return buffer.getvalue()


def _cut_legacy(path: Path) -> None:
    legacy(state)(path)
    path.write_bytes(path.read_bytes()[:-40])


def _lacking(path: Path) -> None:
    huggingface(path, parts=2)
    next(path.glob("model-00002*")).unlink()


def _elsewhere(path: Path) -> None:
    huggingface(path, parts=2)
    index = path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
