"""Data files as people have them: each a function that writes one, and what it must give or say."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, size=(6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 4, 4])
X = torch.from_numpy(PIXELS.astype(np.float32) / np.float32(255))
TABLE = np.round(RNG.uniform(-3, 3, size=(6, 2)) * 4) / 4
CSV = "height,width,kind\n" + "".join(f"{a},{b},{y}\n" for (a, b), y in zip(TABLE, LABELS, strict=True))


@dataclass(frozen=True)
class Form:
    """How a file is written, what it is called, its labels (None: it has none), and what is said of it."""

    write: Callable[[Path], Any]
    name: str
    labels: Any = tuple(LABELS.tolist())
    values: Any = X
    said: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    grid: float | None = 1 / 255
    split: str = "test"
    label: str | None = None


def images(folder: Path, names: list[str], *, place: Callable[[int], str] = lambda i: "") -> None:
    for i, name in enumerate(names):
        target = folder / place(i) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i].transpose(1, 2, 0)).save(target)


def with_labels(path: Path, table: str, names: list[str] | None = None, file: str = "labels.csv") -> None:
    path.mkdir()
    images(path, names or [f"img{i}.png" for i in range(6)])
    (path / file).write_text(table)


def listed(template: str = "img{i}.png", header: str = "file,label") -> str:
    return header + "\n" + "".join(f"{template.format(i=i)},{y}\n" for i, y in enumerate(LABELS))


def saves(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def npy(path: Path, *, labels: str | None = None, x: np.ndarray = PIXELS) -> None:
    np.save(path, x)
    if labels:
        np.save(path.with_name(labels), LABELS)


def torches(content: Callable[[], Any], **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content(), path, **options)


def tensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": X, "y": torch.from_numpy(LABELS)}, path)


TABLED: dict[str, Any] = {
    "values": torch.from_numpy(TABLE.astype(np.float32)),
    "bounds": (-3.0, 3.0),
    "grid": 0.25,
}

READ = {
    "npz": Form(saves(x=PIXELS, y=LABELS), "a.npz"),
    "npz by other names": Form(saves(images=PIXELS, labels=LABELS), "a.npz"),
    "npz with a column of labels": Form(saves(data=PIXELS, targets=LABELS[:, None]), "a.npz"),
    "npz of both splits": Form(
        saves(x_train=PIXELS[::-1], y_train=LABELS[::-1], x_test=PIXELS, y_test=LABELS), "a.npz"
    ),
    "npz of both splits, the other": Form(
        saves(train_images=PIXELS, train_labels=LABELS, test_images=PIXELS[:2], test_labels=LABELS[:2]),
        "a.npz",
        split="train",
    ),
    "npz without labels": Form(saves(x=PIXELS), "a.npz", labels=None),
    "npz of floats on pixels": Form(saves(x=X.numpy(), y=LABELS), "a.npz"),
    "npz with ranges per feature": Form(
        saves(x=TABLE.astype("f4"), y=LABELS, low=[-3, -4.0], high=[3, 5.0], grid=0.25),
        "a.npz",
        values=TABLED["values"],
        bounds=(-4.0, 5.0),
        grid=0.25,
        said="every feature is in its own range",
    ),
    "npz with a lattice per feature": Form(
        saves(
            x=np.stack([np.arange(6) * 0.5, np.arange(6) * 0.75], 1),
            y=LABELS,
            low=0,
            high=8,
            grid=[0.5, 0.75],
        ),
        "a.npz",
        values=torch.stack([torch.arange(6) * 0.5, torch.arange(6) * 0.75], 1),
        bounds=(0.0, 8.0),
        grid=0.25,
        said="step 0.25",
    ),
    "npz with whole and half steps": Form(
        saves(
            x=np.stack([np.arange(6) * 10.0, np.arange(6) * 0.5], 1), y=LABELS, low=0, high=64, grid=[10, 0.5]
        ),
        "a.npz",
        values=torch.stack([torch.arange(6) * 10.0, torch.arange(6) * 0.5], 1),
        bounds=(0.0, 64.0),
        grid=0.5,
        said="step 0.5",
    ),
    "npy with labels beside": Form(lambda p: npy(p, labels="labels.npy"), "a.npy", said="labels.npy"),
    "npy with its own labels": Form(lambda p: npy(p, labels="y_test.npy"), "x_test.npy", said="y_test.npy"),
    "npy of images": Form(
        lambda p: npy(p, labels="test_labels.npy"), "test_images.npy", said="test_labels.npy"
    ),
    "npy alone": Form(npy, "a.npy", labels=None),
    "pair of tensors": Form(torches(lambda: (X, torch.from_numpy(LABELS))), "a.pt"),
    "list of two tensors": Form(torches(lambda: [X, torch.from_numpy(LABELS)]), "a.pth"),
    "dictionary of tensors": Form(torches(lambda: {"x": X, "y": torch.from_numpy(LABELS)}), "a.pt"),
    "dictionary with numbers": Form(
        torches(lambda: {"data": X, "targets": LABELS.tolist(), "num_classes": 5, "low": 0.0, "high": 1.0}),
        "a.pt",
    ),
    "8-bit tensors of old torch": Form(
        torches(
            lambda: (torch.from_numpy(PIXELS), torch.from_numpy(LABELS)), _use_new_zipfile_serialization=False
        ),
        "training.pt",
    ),
    "one tensor": Form(torches(lambda: X), "a.pt", labels=None),
    "list of pairs": Form(torches(lambda: [(x, int(y)) for x, y in zip(X, LABELS, strict=True)]), "a.pt"),
    "list of inputs": Form(torches(lambda: list(X)), "a.pt", labels=None),
    "bfloat16": Form(
        torches(lambda: {"x": X.bfloat16(), "y": torch.from_numpy(LABELS)}),
        "a.pt",
        values=X.bfloat16().float(),
        grid=None,
    ),
    "safetensors": Form(tensors, "a.safetensors"),
    "csv": Form(lambda p: p.write_text(CSV), "a.csv", label="kind", said="step 0.25", **TABLED),
    "csv by its name": Form(lambda p: p.write_text(CSV), "a.csv:kind", said="label column 'kind'", **TABLED),
    "csv with a usual label": Form(lambda p: p.write_text(CSV.replace("kind", "Label")), "a.csv", **TABLED),
    "csv of Windows": Form(
        lambda p: p.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        "a.csv",
        label="kind",
        **TABLED,
    ),
    "csv with spaces and quotes": Form(
        lambda p: p.write_text(CSV.replace(",", ", ").replace("height", '"height"')),
        "a.csv",
        label="kind",
        **TABLED,
    ),
    "tsv": Form(lambda p: p.write_text(CSV.replace(",", "\t")), "a.tsv", label="kind", **TABLED),
    "csv with the label first": Form(
        lambda p: p.write_text(
            "y,a,b\n" + "".join(f"{y},{a},{b}\n" for (a, b), y in zip(TABLE, LABELS, strict=True))
        ),
        "a.csv",
        **TABLED,
    ),
    "csv of labels as floats": Form(
        lambda p: p.write_text(CSV.replace("\n", ".0\n").replace("kind.0", "kind")),
        "a.csv",
        label="kind",
        **TABLED,
    ),
    "folder of classes": Form(
        lambda p: images(p, [f"{i}.png" for i in range(6)], place=lambda i: f"c{LABELS[i]}"), "f"
    ),
    "folder with a test part only": Form(
        lambda p: images(p / "test", [f"{i}.png" for i in range(6)], place=lambda i: f"c{LABELS[i]}"), "f"
    ),
    "folder of images with labels": Form(lambda p: with_labels(p, listed()), "f", said="labels.csv"),
    "folder with names without endings": Form(
        lambda p: with_labels(p, listed("img{i}", "id,label"), file="train.csv"), "f", said="train.csv"
    ),
    "folder with numbered images": Form(
        lambda p: with_labels(p, listed("{i}", "id,label"), [f"{i}.png" for i in range(6)]), "f"
    ),
    "folder of images alone": Form(
        lambda p: images(p, [f"{i}.png" for i in range(6)]), "f", labels=None, said="no labels"
    ),
}


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@dataclass(frozen=True)
class Refusal:
    """A file that cannot be certified as it is, and the words that say why and what to do."""

    write: Callable[[Path], Any]
    name: str
    words: tuple[str, ...]
    label: str | None = None


def text(content: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content)


REFUSED = {
    "npz of something else": Refusal(
        saves(a=PIXELS, b=LABELS), "a.npz", ("no array x and no array y", "a, b")
    ),
    "npz with two inputs": Refusal(
        saves(x=PIXELS, images=PIXELS, y=LABELS), "a.npz", ("several arrays for inputs",)
    ),
    "npz below its own range": Refusal(
        saves(x=TABLE, y=LABELS, low=[-3, 0.0], high=3), "a.npz", ("feature 1 of input", "declared low is 0")
    ),
    "npz above its own range": Refusal(
        saves(x=TABLE, y=LABELS, low=-3, high=[3, 0.0]), "a.npz", ("declared high is 0",)
    ),
    "npz with ranges of another count": Refusal(
        saves(x=TABLE, y=LABELS, low=[-3, -3, -3.0]), "a.npz", ("low in", "shape (3,)", "2 numbers")
    ),
    "npz with lattices that meet nowhere": Refusal(
        saves(x=TABLE, y=LABELS, low=-3, high=3, grid=[1 / 255, 1 / 1023]), "a.npz", ("no common step",)
    ),
    "npz with a step of zero": Refusal(
        saves(x=TABLE, y=LABELS, grid=[0.5, 0.0]), "a.npz", ("grid 0", "positive")
    ),
    "npy of objects": Refusal(
        lambda p: np.save(p, np.array([None, "a"], dtype=object), allow_pickle=True),
        "a.npy",
        ("Python objects",),
    ),
    "npy with two files of labels": Refusal(
        lambda p: (npy(p, labels="labels.npy"), npy(p, labels="y.npy")),
        "a.npy",
        ("labels.npy or in y.npy", "savez"),
    ),
    "npy with other labels": Refusal(
        lambda p: (np.save(p, PIXELS[:3]), np.save(p.with_name("labels.npy"), LABELS)),
        "a.npy",
        ("labels have shape",),
    ),
    "npy that is a page": Refusal(text("<html>"), "a.npy", ("a web page",)),
    "tensor data set": Refusal(
        torches(lambda: torch.utils.data.TensorDataset(X, torch.from_numpy(LABELS))),
        "a.pt",
        ("TensorDataset object", "torch.save({'x': x, 'y': y}, path)"),
    ),
    "weights": Refusal(
        torches(lambda: torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(9)]).state_dict()),
        "a.pt",
        ("the weights of a network", "--model"),
    ),
    "a number": Refusal(torches(lambda: 3), "a.pt", ("holds no data set", "a int")),
    "csv without a label": Refusal(
        text(CSV), "a.csv", ("which column", "height, width, kind", "--label kind")
    ),
    "csv without that label": Refusal(text(CSV), "a.csv", ("no column 'colour'",), label="colour"),
    "csv without a header": Refusal(
        text("1.0,2.0,0\n2.0,1.0,1\n"), "a.csv", ("names no columns", "header line")
    ),
    "csv with a category": Refusal(
        text("a,colour,label\n1,red,0\n2,blue,1\n"), "a.csv", ("'colour'", "blue, red", "held fixed")
    ),
    "csv with text for labels": Refusal(
        text("a,label\n1,cat\n2,dog\n"),
        "a.csv",
        ("no class indices|not hold class indices", "cat, dog", "classes="),
    ),
    "csv with an empty cell": Refusal(text("a,label\n1,0\n,1\n"), "a.csv", ("row 2", "'a'", "empty")),
    "csv with infinity": Refusal(text("a,label\n1,0\ninf,1\n"), "a.csv", ("no finite number",)),
    "csv of labels alone": Refusal(text("label\n1\n0\n"), "a.csv", ("no column besides",)),
    "csv of a header alone": Refusal(text("a,label\n"), "a.csv", ("no rows",)),
    "csv of ragged rows": Refusal(text("a,label\n1,0\n1,2,3\n"), "a.csv", ("cannot be parsed",)),
    "csv that is packed": Refusal(
        lambda p: p.write_bytes(b"\x1f\x8b" + bytes(50)), "a.csv", ("a gzip archive",)
    ),
    "csv of labels below zero": Refusal(text("a,label\n1,-1\n2,1\n"), "a.csv", ("label -1",)),
    "label of no table": Refusal(saves(x=PIXELS, y=LABELS), "a.npz", ("--label has no meaning",), label="y"),
    "folder with half the labels": Refusal(
        lambda p: with_labels(p, "file,label\nimg0.png,1\n"), "f", ("no row for img1.png", "5 are missing")
    ),
    "folder with names of classes": Refusal(
        lambda p: with_labels(p, "file,label\n" + "".join(f"img{i}.png,cat\n" for i in range(6))),
        "f",
        ("class indices", "labels.csv"),
    ),
    "folder with two rows for one": Refusal(
        lambda p: with_labels(p, listed() + "img0.png,3\n"), "f", ("two rows for 'img0.png'",)
    ),
    "folder with two tables": Refusal(
        lambda p: (with_labels(p, listed(), file="a.csv"), (p / "b.csv").write_text(listed())),
        "f",
        ("a.csv or in b.csv",),
    ),
    "empty folder": Refusal(lambda p: p.mkdir(), "f", ("no folder of labelled images", "labels.csv")),
}
