"""Transformers: answers that are objects, folders of weights, names that the library changes."""

import sys

import numpy as np
import pytest
import torch

import certify
from attacks import Threat, attack
from certify.errors import ArchitectureMismatch, InvalidModel

transformers = pytest.importorskip("transformers", reason="the huggingface extra is not installed")
MODULE = """
import certify
import transformers


def loads(folder="{folder}"):
    network = transformers.AutoModelForImageClassification.from_pretrained(folder)
    return certify.wrap(network, mean=0.5, std=0.5, output="logits")


def builds(folder="{folder}"):
    config = transformers.AutoConfig.from_pretrained(folder)
    return certify.wrap(transformers.AutoModelForImageClassification.from_config(config), output="logits")
"""


def vit(seed=0):
    torch.manual_seed(seed)
    config = transformers.ViTConfig(
        num_labels=3, image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    vit().save_pretrained(tmp_path / "whole")
    vit().save_pretrained(tmp_path / "parts", max_shard_size="5KB")
    vit(seed=1).save_pretrained(tmp_path / "other")
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    (tmp_path / "hf_factories.py").write_text(MODULE.format(folder=tmp_path / "whole"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("hf_factories", None)


X = torch.round(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255) / 255


@pytest.mark.parametrize("name", ["whole", "parts"])
def test_a_folder_is_loaded_through_the_users_function_and_compared_tensor_by_tensor(folder, name):
    loaded = certify.load(folder / name, arch="hf_factories:loads")
    assert torch.equal(loaded(X), vit()((X - 0.5) / 0.5).logits)
    assert any("under its own names" in line for line in loaded.certify_loaded.lines()) or not (
        loaded.certify_loaded.notes
    )
    run = certify.Smoothed(loaded, 0.25).certify(X[:2], [0, 1], n_max=200)
    assert run.settings["num_classes"] == 3


def test_other_weights_than_the_factory_loaded_are_refused(folder):
    with pytest.raises(ArchitectureMismatch, match="do not belong"):
        certify.load(folder / "other", arch="hf_factories:loads")


def test_a_network_of_random_weights_is_never_taken_for_the_folders(folder):
    try:
        loaded = certify.load(folder / "whole", arch="hf_factories:builds")
    except ArchitectureMismatch:
        return  # this release of the library renames its weights
    assert torch.equal(loaded(X), vit()(X).logits)


def test_an_answer_that_is_an_object_says_where_its_scores_are():
    net = vit()
    with pytest.raises(InvalidModel, match=r"certify.wrap\(model, output='logits'\)"):
        certify.Smoothed(net, 0.25).certify(X)
    with pytest.raises(InvalidModel, match=r"certify.wrap\(model, output='logits'\)"):
        attack(net, X, threat=Threat(2, eps=0.1), preset="quick")
    wrapped = certify.wrap(net, output="logits")
    run = certify.Smoothed(wrapped, 0.25).certify(X, n_max=200)
    assert len(run) == 3
    assert np.isfinite([r.radius for r in run]).all()
