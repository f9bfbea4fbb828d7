"""Models in other forms: normalised inside, structured answers, probabilities, one score for two classes."""

import copy
import dataclasses
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

import certify
from certify.checkpoints import model_digest
from certify.errors import InvalidModel, InvalidSetting

X = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(classes=5, width=48):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, classes)).eval()


@dataclasses.dataclass
class Answer:
    loss: torch.Tensor | None
    logits: torch.Tensor


def test_normalisation_per_channel_is_the_usual_one():
    seen = (X - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    net = network()
    assert torch.equal(certify.wrap(net, mean=MEAN, std=STD)(X), net(seen))
    assert torch.equal(certify.wrap(net, mean=np.array(MEAN).reshape(3, 1, 1), std=STD)(X), net(seen))
    assert torch.equal(certify.wrap(net, std=1 / 255)(X), net(X / torch.tensor(1 / 255)))
    assert torch.equal(certify.wrap(net, mean=X[0])(X), net(X - X[0]))


def test_a_table_is_normalised_per_feature_as_scikit_learn_does():
    table = np.random.default_rng(0).normal([0, 1000], [1, 300], (50, 2)).astype(np.float32)
    scaler = StandardScaler().fit(table)
    net = network(2, 2)
    found = certify.wrap(net, mean=scaler.mean_, std=scaler.scale_)(torch.from_numpy(table))
    expected = net(torch.from_numpy(scaler.transform(table).astype(np.float32)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (lambda z: {"aux": z * 0, "out": z}, "out"),
        (lambda z: OrderedDict(loss=None, logits=z), "logits"),
        (lambda z: Answer(None, z), "logits"),
        (lambda z: SimpleNamespace(logits=z), "logits"),
        (lambda z: (z, z * 0), 0),
    ],
)
def test_scores_are_found_in_structured_answers(answer, output):
    net = network()
    wrapped = certify.wrap(lambda x: answer(net(x)), output=output)
    assert torch.equal(wrapped(X), net(X))
    with pytest.raises(InvalidModel, match=f"output={output!r}"):
        certify.answers.check_output(answer(net(X)), batch=6, num_classes=5)
    with pytest.raises(InvalidModel, match="'nowhere'"):
        certify.wrap(lambda x: answer(net(x)), output="nowhere")(X)


def test_probabilities_keep_their_softmax_and_their_order():
    net = network()
    wrapped = certify.wrap(nn.Sequential(net, nn.Softmax(1)).eval(), scores="probabilities")
    torch.testing.assert_close(wrapped(X).softmax(1).float(), net(X).softmax(1))
    assert torch.equal(wrapped(X).argmax(1), net(X).argmax(1))
    with pytest.raises(InvalidModel, match="logits"):
        certify.wrap(network(), scores="probabilities")(X * 100)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_one_score_becomes_two_columns_with_its_sigmoid(shape, scores):
    z = torch.tensor([-30.0, -1.0, -1e-6, 1e-6, 2.0, 30.0])
    given = z if scores == "logits" else z.sigmoid()
    out = certify.wrap(lambda x: given.reshape(shape), scores=scores, binary=True)(X)
    assert out.shape == (6, 2)
    torch.testing.assert_close(out.softmax(1)[:, 1].float(), z.sigmoid())
    if scores == "logits":
        assert out.argmax(1).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(InvalidModel, match="binary=True"):
        certify.answers.check_output(given.reshape(shape), batch=6, num_classes=2)


def test_a_single_score_is_compared_with_a_column_of_size_one():
    # Beside a column of zeros, the rounding of scores near 0 would look like dependence on the batch.
    out = certify.wrap(lambda x: torch.zeros(6), binary=True)(X)
    assert out.abs().amax(1).min() >= 1


def test_the_mode_is_that_of_the_model_and_the_weights_are_shared():
    net = network()
    assert not certify.wrap(net).training
    wrapped = certify.wrap(net.train(), mean=0.5)
    assert wrapped.training
    assert wrapped.model is net
    assert torch.equal(copy.deepcopy(wrapped)(X), wrapped(X))


def test_normalisation_is_part_of_the_models_identity():
    net = network()
    digests = {model_digest(certify.wrap(net, mean=m, std=STD)) for m in (MEAN, (0.5, 0.5, 0.5))}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
        ({"mean": "imagenet"}, "takes mean: float"),
        ({"mean": (0.0, float("nan"), 0.0)}, "finite"),
        ({"scores": "softmax"}, "probabilities"),
    ],
)
def test_impossible_options_are_refused(options, word):
    with pytest.raises(InvalidSetting, match=word):
        certify.wrap(network(), **options)


def test_another_number_of_channels_is_named():
    with pytest.raises(InvalidModel, match="3 numbers"):
        certify.wrap(network(), mean=(0.5,) * 4, std=(0.5,) * 4)(X)
    with pytest.raises(InvalidModel, match="one score each"):
        certify.wrap(network(), binary=True)(X)


def test_probabilities_are_warned_about_and_votes_alone_are_not():
    x = torch.zeros(1, 3, 4, 4) + 128 / 255
    soft = nn.Sequential(network(), nn.Softmax(1)).eval()
    with pytest.warns(UserWarning, match="probabilities"):
        certify.Smoothed(soft, 0.25, num_classes=5).certify(x, n_max=100)
    import warnings

    net = network()
    hard = lambda x: nn.functional.one_hot(net(x).argmax(1), 5).float()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        certify.Smoothed(hard, 0.25, num_classes=5).certify(x, n_max=100)
        certify.Smoothed(network(), 0.25, num_classes=5).certify(x, n_max=100)


class LikeTimm(nn.Module):
    """The part of a timm model's interface that docs/your-model.md relies on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.pretrained_cfg = {"mean": MEAN, "std": STD, "input_size": (3, 4, 4)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_the_interfaces_of_model_libraries_are_certified():
    timm_like = LikeTimm().eval()
    by_timm = certify.wrap(
        timm_like, mean=timm_like.pretrained_cfg["mean"], std=timm_like.pretrained_cfg["std"]
    )
    preset = SimpleNamespace(mean=list(MEAN), std=list(STD))  # torchvision's weights.transforms()
    by_torchvision = certify.wrap(network(), mean=preset.mean, std=preset.std)
    processor = SimpleNamespace(image_mean=list(MEAN), image_std=list(STD))  # transformers
    net = network()
    by_transformers = certify.wrap(
        lambda x: Answer(None, net(x)),
        mean=processor.image_mean,
        std=processor.image_std,
        output="logits",
    )
    x = (X[:2] * 255).round() / 255
    runs = [
        certify.Smoothed(model, 0.25, num_classes=5).certify(x, n_max=300, seed=2)
        for model in (by_timm, by_torchvision, by_transformers)
    ]
    first, *others = ([r.counts for r in run] for run in runs)
    assert all(other == first for other in others)
