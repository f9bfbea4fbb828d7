"""Published ResNets answer as the paper's equations on their weights do, in both layouts."""

import pytest
import torch

import certify
from certify.errors import ArchitectureMismatch, InvalidSetting
from pdenets.cifar_resnet import LAYOUTS, cifar_resnet
from tests.published import checkpoint, logits, photos, weights

X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def data(tmp_path):
    photos(tmp_path / "photos")
    return certify.data.load(tmp_path / "photos", limit=2)


@pytest.mark.parametrize(
    ("depth", "layout"), [(20, "akamaster"), (32, "akamaster"), (20, "cohen"), (110, "cohen")]
)
def test_the_network_is_the_one_that_its_weights_were_made_for(tmp_path, data, depth, layout):
    state = weights(depth, layout=layout, seed=depth)
    names = {f"1.{k}": v for k, v in state.items()} if layout == "cohen" else state
    torch.save({"epoch": 3, "arch": "cifar_resnet", "state_dict": names}, tmp_path / "a.pth.tar")
    net = certify.load(
        tmp_path / "a.pth.tar", arch="cifar-resnet", arguments={"depth": depth, "layout": layout}, data=data
    )
    mean, std, _ = LAYOUTS[layout]
    torch.testing.assert_close(net(X), logits(state, X, mean, std), atol=1e-3, rtol=1e-4)
    assert net.certify_header.input_shape == (3, 32, 32)


def test_a_published_file_of_old_torch_loads_with_nothing_but_its_name(tmp_path, data):
    checkpoint(tmp_path / "resnet20.th")
    net = certify.load(tmp_path / "resnet20.th", arch="cifar-resnet", data=data)
    mean, std, _ = LAYOUTS["akamaster"]
    torch.testing.assert_close(net(X), logits(weights(), X, mean, std), atol=1e-4, rtol=1e-4)
    assert net.certify_loaded.lines() == [
        "loaded: entry 'state_dict', prefix 'module.' removed",
        "ignored: best_prec1 (91.73)",
        "written in the format of torch before 1.6",
        "the weights are those of the model inside certify.wrap",
    ]


def test_another_depth_or_layout_is_named(tmp_path, data):
    checkpoint(tmp_path / "resnet20.th")
    for arguments, words in (({"depth": 32}, "layer1.3"), ({"layout": "cohen"}, "downsample")):
        with pytest.raises(ArchitectureMismatch, match=words):
            certify.load(tmp_path / "resnet20.th", arch="cifar-resnet", arguments=arguments, data=data)


@pytest.mark.parametrize("wrong", [{"depth": 21}, {"depth": 2}, {"layout": "own"}, {"input_shape": (3,)}])
def test_forms_that_do_not_exist_are_refused(wrong):
    with pytest.raises(InvalidSetting, match="no form of"):
        cifar_resnet(**{"num_classes": 10, "input_shape": (3, 32, 32)} | wrong)


def test_other_channels_and_normalisation_of_ones_own():
    grey = cifar_resnet(num_classes=2, input_shape=(1, 28, 28)).eval()
    assert grey(torch.rand(2, 1, 28, 28)).shape == (2, 2)
    own = cifar_resnet(num_classes=10, input_shape=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert own.mean.tolist() == [0.5, 0.5, 0.5]
