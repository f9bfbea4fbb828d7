"""Every form in which people have their data is read as what it is, or refused by name."""

import numpy as np
import pytest
import torch

import certify
from certify.data import load
from certify.errors import CertifyError
from tests.certify.people_data import LABELS, READ, REFUSED, X


@pytest.mark.parametrize("form", READ)
def test_form_is_read_as_what_it_is(tmp_path, form):
    row = READ[form]
    row.write(tmp_path / row.name.partition(":")[0])
    found = load(tmp_path / row.name, split=row.split, label=row.label)
    order = torch.arange(6)
    if ("folder" in form and "classes" in form) or "test part" in form:  # classes come in turn
        order = torch.argsort(torch.tensor([0, 1, 2, 3, 4, 5]))
    assert torch.equal(found.x, row.values[order])
    assert (None if found.labels is None else tuple(found.y.tolist())) == row.labels
    assert found.bounds == row.bounds
    assert found.grid == row.grid
    assert row.said in "; ".join(found.notes)
    again = load(found.name, split=row.split)
    assert torch.equal(again.x, found.x), "the name alone finds the same data again"
    assert torch.equal(again.y, found.y)
    assert torch.equal(load(found.name, split=row.split, skip=2, limit=2).x, found.x[2:4])
    if found.grid is not None:
        certify.noise.make_noise("lattice", sigma=0.25, grid=found.grid, bounds=found.bounds).prepare(
            found.x[0]
        )


@pytest.mark.parametrize("form", REFUSED)
def test_form_is_refused_by_name(tmp_path, form):
    row = REFUSED[form]
    row.write(tmp_path / row.name)
    with pytest.raises(CertifyError) as caught:
        load(tmp_path / row.name, label=row.label)
    for words in row.words:
        assert any(part in str(caught.value) for part in words.split("|")), caught.value


def test_a_lattice_of_all_features_holds_the_lattice_of_each(tmp_path):
    draw, refused = np.random.default_rng(1), []
    for _ in range(30):
        steps = draw.choice([1 / 3, 0.5, 0.1, 2.0**-7, 1 / 255, 1.0, 2.0, 10.0, 0.75, 1 / 12], size=3)
        x = draw.integers(0, 5, size=(4, 3)) * steps
        np.savez(tmp_path / "a.npz", x=x.astype(np.float32), y=[0, 1, 0, 1], low=0, high=64, grid=steps)
        try:
            found = load(tmp_path / "a.npz")
        except CertifyError as error:
            refused.append(str(error))
            continue
        parts = steps / found.grid
        assert np.abs(parts - parts.round()).max() < 1e-6
        certify.noise.make_noise("lattice", sigma=0.5, grid=found.grid, bounds=(0, 64)).prepare(found.x[0])
    assert len(refused) < 15
    assert all("no common step" in text for text in refused)


def test_features_that_one_sigma_cannot_suit_are_pointed_out(tmp_path):
    (tmp_path / "a.csv").write_text("age,income,label\n20,10000,0\n40,30000,1\n")
    assert "Standardise" in " ".join(load(tmp_path / "a.csv").notes)


def test_classes_in_numbered_folders_are_in_the_order_of_text_and_that_is_said(tmp_path):
    from PIL import Image

    for k in range(11):
        (tmp_path / "f" / str(k)).mkdir(parents=True)
        Image.new("RGB", (4, 4), (k, k, k)).save(tmp_path / "f" / str(k) / "a.png")
    found = load(tmp_path / "f")
    assert found.classes[:3] == ("0", "1", "10")
    assert "0, 1, 10, 2" in found.notes[0]


def test_inputs_without_labels_are_certified_attacked_and_not_trained_on(tmp_path):
    from attacks import Threat, attack
    from pdenets.training import train

    np.savez(tmp_path / "a.npz", x=(X * 255).to(torch.uint8).numpy())
    data = load(tmp_path / "a.npz")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)).eval()
    run = certify.Smoothed(net, 0.25, data=data).certify(data, n_max=200)
    assert all(r.target is None for r in run)
    assert run.settings["num_classes"] == 5, "the model says how many classes there are"
    assert len(attack(net, data, threat=Threat(2, eps=0.1), preset="quick")) == 6
    with pytest.raises(CertifyError, match="has no labels"):
        train(data, arch="linear", out=tmp_path / "a.pt")


def test_hostile_arrays_in_a_well_formed_file_end_in_a_data_set_or_a_named_error(tmp_path):
    draw = np.random.default_rng(3)
    x = draw.integers(0, 256, size=(6, 1, 4, 4), dtype=np.uint8)
    kinds = ("f2", "i8", "datetime64[s]", "bool", ">f8")
    inputs = [x, *(x.astype(kind) for kind in kinds), x / 255, np.zeros((6, 0), "f4"), np.zeros(6)]
    inputs += [np.zeros((0, 1, 4, 4)), np.zeros(6, dtype=[("a", "f4")]), np.zeros((6, 2)), np.float32(3)]
    labels = [LABELS, *(LABELS.astype(kind) for kind in ("f8", "U5", "bool")), LABELS * 2**40, LABELS[:3]]
    labels += [np.zeros((6, 4, 4), int), np.full(6, 10**9), np.array("text"), LABELS[:, None]]
    odd = [
        np.nan,
        np.inf,
        -1.0,
        1e308,
        1e-300,
        [1e308, 0.1],
        [-1.0, 2.0],
        [0.5, 0.25],
        [True, False],
        2**63 - 1,
    ]
    odd += [[], np.zeros((0, 0)), np.array(b"x"), np.array("\x00"), [1 + 2j], ["a"] * 3, [[["a"]]]]
    seen = {"read": 0, "refused": 0}
    for _ in range(400):
        arrays = {"x": inputs[draw.integers(len(inputs))], "y": labels[draw.integers(len(labels))]}
        for name in ("low", "high", "grid", "num_classes", "classes"):
            if draw.random() < 0.3:
                arrays[name] = odd[draw.integers(len(odd))]
        np.savez(tmp_path / "a.npz", **arrays)
        try:
            found = load(tmp_path / "a.npz")
            repr(found)
            certify.Smoothed(lambda z: torch.stack((z.flatten(1).sum(1),) * 2, 1), sigma=0.1, data=found)
            seen["read"] += 1
        except CertifyError:
            seen["refused"] += 1
    assert seen["read"] > 3
    assert seen["refused"] > 200


def test_the_tables_are_long():
    assert len(READ) + len(REFUSED) >= 60
    assert len(LABELS) == 6
