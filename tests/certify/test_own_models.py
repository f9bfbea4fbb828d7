"""A network of one's own: saved in one call, loaded by name, completed by its data."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify import data, registry
from certify.errors import ArchitectureMismatch, InvalidInput, InvalidModel, InvalidSetting, UntrustedFile
from tests.certify.own_networks import Table, factory

OWN = "tests.certify.own_networks"


@pytest.fixture
def own(tmp_path):
    """An .npz file of a table with values on a lattice."""
    rng = np.random.default_rng(0)
    x = np.round(rng.uniform(-2, 2, (12, 4)) * 1024) / 1024
    path = tmp_path / "own.npz"
    np.savez(path, x=x.astype(np.float32), y=np.arange(12) % 3, low=-2.0, high=2.0, grid=2.0**-10)
    return path


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Table().eval()


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_saved_class_needs_nothing_but_its_name_confirmed(tmp_path, own, network, ending):
    path = tmp_path / f"net.{ending}"
    header = certify.save(network, path, data=own, sigma=0.25)
    assert header.architecture == f"{OWN}:Table"
    assert (header.num_classes, header.input_shape, header.low, header.high) == (3, (4,), -2.0, 2.0)
    assert header.grid == 2.0**-10
    assert header.training == {"sigma": 0.25}
    with pytest.raises(UntrustedFile, match=f"--arch {OWN}:Table"):
        certify.load(path)
    with pytest.raises(ArchitectureMismatch, match=f"confirm the network it names.*{OWN}:Table"):
        certify.load(path, arch=f"{OWN}:factory")
    loaded = certify.load(path, arch=f"{OWN}:Table")
    x = torch.rand(3, 4)
    assert torch.equal(loaded(x), network(x))
    assert certify.Smoothed(loaded, 0.25).bounds == (-2.0, 2.0)


def test_facts_may_be_given_instead_of_data(tmp_path, network):
    header = certify.save(
        network, tmp_path / "a.pt", num_classes=3, input_shape=(4,), bounds=(-1, 1), grid=0.5, arguments={}
    )
    assert (header.low, header.high, header.grid, header.dataset) == (-1.0, 1.0, 0.5, {})
    with pytest.raises(InvalidSetting, match="input_shape"):
        certify.save(network, tmp_path / "b.pt", num_classes=3)


def test_saving_leaves_the_model_as_it_was_and_takes_one_in_training(tmp_path, own):
    net = Table().train()
    certify.save(net, tmp_path / "a.pt", data=own)
    assert net.training


def test_another_network_than_will_be_built_is_not_saved(tmp_path, own, network):
    network.activation = "sin"
    with pytest.raises(ArchitectureMismatch, match="another network"):
        certify.save(network, tmp_path / "a.pt", data=own)
    assert not (tmp_path / "a.pt").exists()
    certify.save(network, tmp_path / "a.pt", data=own, arguments={"activation": "sin"})
    x = torch.rand(3, 4)
    loaded = certify.load(tmp_path / "a.pt", arch=f"{OWN}:Table", arguments={"activation": "sin"})
    assert torch.equal(loaded(x), network(x))


def test_networks_without_a_name_are_refused(tmp_path, own):
    class Local(Table):
        pass

    for net in (Local(), nn.Sequential(nn.Linear(4, 3))):
        with pytest.raises(InvalidSetting, match="mynet"):
            certify.save(net, tmp_path / "a.pt", data=own)
    with pytest.raises(ArchitectureMismatch, match="missing from the file"):
        certify.save(Table(4, 9), tmp_path / "a.pt", architecture="linear", data=own)
    with pytest.raises(InvalidModel, match="classes"):
        certify.save(Table(classes=2), tmp_path / "a.pt", data=own, arguments={"classes": 2})
    assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize(("name", "arguments"), [("Table", {}), ("factory", {}), ("factory", {"hidden": 8})])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_state_dict_is_completed_by_its_data(tmp_path, own, network, name, arguments, ending):
    path = tmp_path / f"w.{ending}"
    if ending == "pt":
        torch.save(network.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(network.state_dict(), path)
    found = data.load(str(own))
    loaded = certify.load(path, arch=f"{OWN}:{name}", arguments=arguments, data=found)
    x = torch.rand(3, 4)
    assert torch.equal(loaded(x), network(x))
    assert loaded.certify_header is not None
    assert loaded.certify_header.grid == 2.0**-10
    run = certify.Smoothed(loaded, 0.25).certify(found.x[:2], found.y[:2], n_max=200)
    assert len(run) == 2


def test_classes_that_the_data_does_not_show_are_the_models(tmp_path, own, network):
    few = data.load(str(own), limit=12).part(0, 2)
    assert few.counted
    wide = Table(classes=7).eval()
    smoothed = certify.Smoothed(wide, 0.25, data=few)
    assert (smoothed.num_classes, smoothed.bounds, smoothed.grid) == (7, (-2.0, 2.0), 2.0**-10)
    with pytest.raises(InvalidModel, match="2 classes where 3"):
        certify.Smoothed(Table(classes=2).eval(), 0.25, data=few).certify(few.x)
    arrays = dict(np.load(own))
    np.savez(own, **arrays, num_classes=3)
    with pytest.raises(InvalidModel, match="7 classes where 3"):
        certify.Smoothed(wide, 0.25, data=data.load(str(own))).certify(few.x)


def test_inputs_that_the_model_cannot_take_are_named_in_its_own_words(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(2)).eval()
    net(torch.zeros(1, 3, 8, 8))
    last = torch.zeros(2, 8, 8, 3)
    with pytest.raises(InvalidModel, match=r"RuntimeError: (.|\n)*channels last: x.transpose\(0, 3, 1, 2\)"):
        certify.Smoothed(net, 0.25, num_classes=2).certify(last, n_max=100)
    with pytest.raises(InvalidModel, match="built for"):
        certify.Smoothed(net, 0.25, num_classes=2).predict(torch.zeros(1, 1, 8, 8), seed=0)
    np.savez(tmp_path / "last.npz", x=last.numpy(), y=[0, 1])
    with pytest.raises(InvalidModel, match="channels last"):
        certify.Smoothed(net, 0.25, data=data.load(str(tmp_path / "last.npz")))


def test_what_is_given_comes_before_the_data(own, network):
    found = data.load(str(own))
    smoothed = certify.Smoothed(network, 0.25, data=found, grid=2.0**-12, bounds=(-1.0, 1.0))
    assert (smoothed.grid, smoothed.bounds) == (2.0**-12, (-1.0, 1.0))
    with pytest.raises(InvalidInput, match="range"):
        smoothed.certify(found.x)


def test_offered_arguments_reach_only_those_who_take_them():
    offered = {"num_classes": 3, "input_shape": (4,)}
    assert registry.accepted(Table, offered) == {}
    assert registry.accepted(factory, offered) == offered
    assert registry.accepted(lambda num_classes: None, offered) == {"num_classes": 3}
    assert registry.accepted(lambda **anything: None, offered) == offered
    assert registry.accepted(lambda num_classes, /: None, offered) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere_net:Net", ["nowhere_net.py", "PYTHONPATH"]),
        ("nets/nowhere.py:Net", ["not a file"]),
        (".nowhere:Net", ["mynet:Net"]),
        ("mynet.Net", ["name it as mynet:Net"]),
        ("importer:Net", ["install nowhere_package", "importer imports it"]),
        ("importer2:Nothing", ["name a function or class"]),
    ],
)
def test_a_factory_that_cannot_be_imported_says_what_to_do(tmp_path, monkeypatch, name, words):
    (tmp_path / "importer.py").write_text("import nowhere_package\n")
    (tmp_path / "importer2.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ArchitectureMismatch) as caught:
        registry.architecture(name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_failing_factories_and_missing_arguments_are_named(tmp_path, own, network):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    for arch, word in ((f"{OWN}:needs_packages", "boom"), ("torch.nn:Linear", "in_features")):
        with pytest.raises(ArchitectureMismatch, match=word):
            certify.load(tmp_path / "w.pt", arch=arch, data=data.load(str(own)))


def test_a_module_in_the_working_directory_is_found_by_the_installed_command(tmp_path, own):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(4, 3))\n", encoding="utf-8"
    )
    torch.save(nn.Sequential(nn.Linear(4, 3)).state_dict(), tmp_path / "w.pt")
    code = (
        "import certify; d = certify.data.load('own.npz'); "
        "print(certify.load('w.pt', arch='mynet:net', data=d).certify_header.num_classes)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "3", done.stderr
