"""Inputs as people have them: loaders, data sets, lists, tables and pictures give what arrays give."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
)

import certify
from attacks import Threat, attack
from certify.data import Dataset, as_dataset, gather
from certify.errors import CertifyError, InvalidInput, InvalidSetting

N = 6
PIXELS = torch.randint(0, 256, (N, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
X = PIXELS.float() / 255
Y = torch.arange(N) % 4


class Items(torch.utils.data.Dataset):
    """A map-style data set of whatever ``give`` makes of a position."""

    def __init__(self, give):
        self.give = give

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not 0 <= i < N:
            raise IndexError(i)
        return self.give(i)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Pictures:
    """A sequence that is no torch data set, of dictionaries, as the datasets library gives them."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"image": picture(i), "label": int(Y[i]), "id": f"row {i}"}


def picture(i):
    return Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy())


def pairs():
    return [(X[i], int(Y[i])) for i in range(N)]


PLAIN = TensorDataset(X, Y)
#: Every way to hand over the same six labelled images.
LABELLED = {
    "loader": lambda: DataLoader(PLAIN, batch_size=4),
    "loader without batches": lambda: DataLoader(PLAIN, batch_size=None),
    "loader of single inputs": lambda: DataLoader(PLAIN),
    "loader with a collate of its own": lambda: DataLoader(PLAIN, batch_size=4, collate_fn=list),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=4),
    "loader of dictionaries": lambda: DataLoader(Items(lambda i: {"x": X[i], "y": Y[i]}), batch_size=4),
    "loader with a batch sampler": lambda: DataLoader(
        PLAIN, batch_sampler=BatchSampler(SequentialSampler(PLAIN), 4, False)
    ),
    "tensor data set": lambda: PLAIN,
    "subset": lambda: Subset(PLAIN, range(N)),
    "stream": Stream,
    "data set of pictures": lambda: Items(lambda i: (picture(i), int(Y[i]))),
    "data set of dictionaries": lambda: Items(lambda i: {"pixel_values": X[i], "labels": int(Y[i])}),
    "sequence of dictionaries": Pictures,
    "list of pairs": pairs,
    "tuple of pairs": lambda: tuple(pairs()),
    "iterator of pairs": lambda: iter(pairs()),
    "generator of numpy pairs": lambda: ((x.numpy(), np.int64(y)) for x, y in pairs()),
    "list of picture pairs": lambda: [(picture(i), int(Y[i])) for i in range(N)],
    "lists inside lists": lambda: [[x.tolist(), int(y)] for x, y in pairs()],
    "pair of arrays": lambda: (X.numpy(), Y.numpy()),
    "list of two tensors": lambda: [X, Y],
    "mapping": lambda: {"x": X, "y": Y},
    "data set of certify": lambda: as_dataset(X, Y),
}
INPUTS = {
    "tensor": lambda: X,
    "array": X.numpy,
    "list of arrays": lambda: [x.numpy() for x in X],
    "tuple of tensors": lambda: tuple(X),
    "pictures": lambda: [picture(i) for i in range(N)],
    "nested lists": X.tolist,
    "loader of inputs": lambda: DataLoader(TensorDataset(X), batch_size=4),
    "loader of bare tensors": lambda: DataLoader(Items(lambda i: X[i]), batch_size=4),
    "dictionaries without labels": lambda: [{"img": x} for x in X],
}


@pytest.mark.parametrize("form", LABELLED)
def test_every_labelled_form_gives_the_same_arrays(form):
    found = gather(LABELLED[form]())
    assert torch.equal(torch.as_tensor(np.asarray(found.x), dtype=torch.float32), X)
    assert np.array_equal(np.asarray(found.y), Y.numpy())


@pytest.mark.parametrize("form", INPUTS)
def test_every_form_of_inputs_alone_gives_the_same_arrays(form):
    found = gather(INPUTS[form](), Y)
    assert torch.equal(torch.as_tensor(np.asarray(found.x), dtype=torch.float32), X)
    assert found.y is Y
    assert gather(INPUTS[form]()).y is None


@pytest.mark.parametrize("form", LABELLED)
def test_a_data_set_of_any_form_lies_on_the_lattice_of_pixels(form):
    found = as_dataset(LABELLED[form]())
    assert (found.num_classes, found.counted, found.bounds, found.grid) == (4, True, (0.0, 1.0), 1 / 255)
    assert torch.equal(found.x, X)
    assert torch.equal(found.y, Y)


def smoothed(**settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
    return certify.Smoothed(net, sigma=0.25, **{"num_classes": 4, "grid": 1 / 255} | settings)


@pytest.mark.parametrize("form", ["loader", "data set of pictures", "list of pairs", "data set of certify"])
def test_certificates_of_any_form_are_those_of_the_arrays(form):
    expected = smoothed().certify(X, Y, n_max=300, seed=1)
    found = smoothed(data=LABELLED[form](), num_classes=None, grid=None).certify(
        LABELLED[form](), n_max=300, seed=1
    )
    assert [(r.radius, r.label, r.target) for r in found] == [(r.radius, r.label, r.target) for r in expected]
    votes = smoothed().predict(LABELLED[form](), n=50, seed=2)
    assert votes == smoothed().predict(X, n=50, seed=2)


@pytest.mark.parametrize("form", ["loader", "tensor data set", "list of picture pairs"])
def test_attacks_take_the_same_forms(form):
    net = smoothed().model
    threat = Threat(2, eps=0.5)
    expected = attack(net, X, Y, threat=threat, preset="quick")
    found = attack(net, LABELLED[form](), threat=threat, preset="quick")
    assert [(o.status, o.target) for o in found] == [(o.status, o.target) for o in expected]


def test_the_ids_of_a_part_key_its_noise_as_in_the_whole():
    whole = as_dataset(X, Y)
    runs = [smoothed().certify(part, n_max=300, seed=3) for part in (whole, whole.part(2, 3))]
    assert [r.index for r in runs[1]] == [2, 3, 4]
    assert list(runs[1]) == [r for r in runs[0] if r.index in (2, 3, 4)] or all(
        (a.radius, a.counts) == (b.radius, b.counts) for a, b in zip(list(runs[0])[2:5], runs[1], strict=True)
    )


def test_a_segmenter_takes_images_with_label_maps():
    maps = torch.zeros(N, 4, 4, dtype=torch.int64)
    net = nn.Conv2d(3, 2, 1).eval()
    g = certify.SmoothedSegmentation(net, 0.25, num_classes=2, grid=1 / 255)
    run = g.certify(DataLoader(TensorDataset(X, maps), batch_size=4), n0=5, n=40)
    assert len(run.run) == N
    assert as_dataset(TensorDataset(X, maps)).task == "segmentation"


def test_reading_a_loader_leaves_every_random_stream_as_it_was():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for form in LABELLED:
        gather(LABELLED[form]())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def noisy(i):
    return X[i] + torch.rand(1), int(Y[i])


SIX = {k: [1.0, 2.0] for k in "ab"}
REFUSED = {
    "shuffled": (lambda: DataLoader(PLAIN, shuffle=True), "another order every time"),
    "random batches": (
        lambda: DataLoader(
            PLAIN, batch_sampler=BatchSampler(torch.utils.data.RandomSampler(PLAIN), 2, False)
        ),
        "another order every time",
    ),
    "weighted": (
        lambda: DataLoader(PLAIN, sampler=torch.utils.data.WeightedRandomSampler([1.0] * N, N)),
        "another order every time",
    ),
    "random transform": (lambda: Items(noisy), "at random"),
    "random transform in a loader": (lambda: DataLoader(Items(noisy), batch_size=2), "at random"),
    "three parts": (lambda: TensorDataset(X, Y, Y), "3 parts"),
    "loader of three parts": (lambda: DataLoader(TensorDataset(X, Y, Y), batch_size=2), "3 parts"),
    "one-hot labels": (lambda: TensorDataset(X, torch.eye(4)[Y]), "argmax"),
    "regression": (lambda: [(x, 0.5) for x in X], "no class index"),
    "dictionary without an input": (lambda: [{"text": "a", "label": 1}], "'text', 'label'"),
    "dictionary with two": (lambda: [{"image": X[0], "pixel_values": X[0]}], "which the label"),
    "two sizes": (lambda: [X[0], X[1, :, :2]], "input 1 has shape"),
    "some labels": (lambda: [(X[0], 1), X[1]], "input 1 has no label"),
    "palette": (lambda: [picture(0).convert("P")], 'convert("RGB")'),
    "sixteen bits": (lambda: [Image.new("I;16", (4, 4))], "'I;16'"),
    "paths": (lambda: ["a.png", "b.png"], "certify.data.load"),
    "a path": (lambda: "images/", "certify.data.load"),
    "nothing": (list, "empty"),
    "a number": (lambda: 3, "int, not an array"),
    "objects": (lambda: [object(), object()], "object, not an array"),
    "text columns": (lambda: pd.DataFrame(SIX | {"c": ["red", "blue"]}), "'c' does not hold numbers"),
    "dates": (lambda: pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "'t' does not hold numbers"),
    "categories": (
        lambda: pd.DataFrame({"k": pd.Categorical(["u", "v"]), "m": ["a", "b"]}), "nor 1 others",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_by_name(form):
    make, words = REFUSED[form]
    with pytest.raises(CertifyError) as caught:
        gather(make())
    assert words in str(caught.value)
    with pytest.raises(CertifyError):
        smoothed().certify(make(), n_max=100)


def test_a_sparse_table_is_refused_with_the_call_that_fills_it():
    from scipy.sparse import csr_matrix

    with pytest.raises(InvalidInput, match=r"x\.toarray\(\)"):
        gather(csr_matrix(np.eye(3)))


def test_labels_are_not_given_twice():
    with pytest.raises(InvalidInput, match="given twice"):
        smoothed().certify(PLAIN, Y)


def test_a_stream_without_an_end_comes_to_one(monkeypatch):
    from certify.data import gathering

    monkeypatch.setattr(gathering, "MAX_BYTES", 2**16)
    with pytest.raises(InvalidSetting, match="Subset"):
        gather(X[0] for _ in iter(int, 1))
    assert len(gather((X[0] for _ in iter(int, 1)), limit=5).x) == 5


# -- tables -------------------------------------------------------------------------------------

TABLE = pd.DataFrame({"height": [1.5, 1.75, 2.0], "old": [True, False, True], "age": [40, 20, 60]})


def test_a_frame_is_its_columns_in_order():
    found = gather(TABLE, [0, 1, 0])
    assert found.x.dtype == np.float32
    assert found.x.tolist() == [[1.5, 1, 40], [1.75, 0, 20], [2, 1, 60]]
    labelled = as_dataset(TABLE.assign(kind=[0, 1, 2]), label="kind", low=0, high=64, grid=0.25)
    assert (labelled.num_classes, labelled.grid, labelled.input_shape) == (3, 0.25, (3,))
    with pytest.raises(InvalidInput, match="no label column 'nothing'"):
        as_dataset(TABLE, label="nothing")


def test_a_missing_value_is_not_a_number():
    with pytest.raises(InvalidInput, match="NaN"):
        as_dataset(TABLE.assign(age=[40, None, 60]), low=0, high=64)
    with pytest.raises(InvalidInput, match="NaN"):
        as_dataset(TABLE.assign(age=pd.array([40, None, 60], dtype="Int64")), low=0, high=64)


def test_names_of_classes_need_their_order():
    names = ["b", "a", "b", "c", "a", "b"]
    with pytest.raises(InvalidInput, match="order of the model's outputs"):
        as_dataset(X, names)
    found = as_dataset(X, names, classes=["c", "b", "a"])
    assert found.y.tolist() == [1, 2, 1, 0, 2, 1]
    assert (found.num_classes, found.classes, found.counted) == (3, ("c", "b", "a"), False)
    with pytest.raises(InvalidInput, match="'c' is the name"):
        as_dataset(X, names, classes=["a", "b"])


def test_what_is_declared_is_kept_and_what_is_not_is_found():
    floats = as_dataset(X * 0.37, Y)
    assert floats.grid is None, "no lattice is invented for values that lie on none"
    assert as_dataset(PIXELS, Y).grid == 1 / 255
    assert torch.equal(as_dataset(PIXELS.numpy(), Y).x, X)
    wide = as_dataset(X * 2 - 1, Y, low=-1, high=1, grid=1 / 255, num_classes=9)
    assert (wide.bounds, wide.num_classes, wide.counted) == ((-1.0, 1.0), 9, False)
    with pytest.raises(InvalidInput, match="declared range"):
        as_dataset(X * 2 - 1, Y)
    for wrong in (1, 1.5, 2**40):
        with pytest.raises(InvalidSetting, match="num_classes"):
            as_dataset(X, Y, num_classes=wrong)
    with pytest.raises(InvalidInput, match="label 1000000000 is not a class"):
        as_dataset(X, [0, 1, 2, 3, 0, 10**9])
    assert isinstance(as_dataset(floats), Dataset)


def test_inputs_without_labels_are_a_data_set_that_says_so():
    found = as_dataset(X)
    assert (found.labelled, found.labels) == (False, None)
    run = smoothed(data=found, num_classes=None).certify(found, n_max=200)
    assert all(record.target is None for record in run)
    assert as_dataset(X, Y).labels is not None


def test_a_range_that_the_caller_gives_comes_before_that_of_the_data():
    loader = DataLoader(TensorDataset((PIXELS.float() * 2 - 255) / 255, Y), batch_size=2)
    assert smoothed(data=loader, bounds=(-1, 1)).certify(loader, n_max=200)
    assert smoothed(data=loader, bounds=None).bounds is None
    with pytest.raises(InvalidInput, match="declared range"):
        smoothed(data=loader)
