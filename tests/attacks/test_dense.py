"""Attacks on pixels: half-spaces whose distances are known, a judge that refuses, certificates that lie."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import certify
from attacks import AttackStatus, Budget, Threat
from attacks.dense import PixelAttack, attack_segmentation, challenge_segmentation
from attacks.dense.judge import NetworkJudge, SmoothedJudge, rival_tail
from attacks.dense.losses import (
    holds,
    jensen_shannon,
    lost_margins,
    masked_cross_entropy,
    segpgd,
    weakest_first,
)
from attacks.dense.outcomes import SegmentationAttackRun
from attacks.dense.sources import Smoothed
from attacks.oracle import Oracle
from attacks.streams import Streams
from certify.contract import IGNORE
from certify.dense import maps as pixel_maps
from certify.dense.run import SegmentationRun, class_iou
from certify.dense.votes import BaseSegmenter
from certify.errors import InvalidInput, InvalidModel, InvalidSetting
from tests.certify.pixel_half_spaces import PixelHalfSpaces

#: Distances of twelve pixels' hyperplanes from the origin; a negative one has class 1 there.
DISTANCES = np.array([[2.5, 2.5, 0.1, 0.5], [-2.5, 0.3, -0.8, 1.2], [2.5, 2.5, 2.5, 2.5]])
MODEL = PixelHalfSpaces(DISTANCES)
X = torch.zeros(2, 1, 3, 4)
OPEN = {"bounds": None}


def smoothed(model=MODEL, **options):
    given = {"num_classes": 2, "noise": "gaussian", "bounds": None, "batch_size": 64}
    return certify.SmoothedSegmentation(model, 1.0, **(given | options))


# -- the base network -----------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "eps"), [("2", 1.0), ("2", 0.4), ("inf", 0.3)])
def test_exactly_the_pixels_whose_hyperplane_is_in_reach_are_reached(norm, eps):
    """In l2 the distance is |b|, in linf |b| / |w|_1: a pixel further away can never be reached."""
    dual = MODEL.w.abs().sum(1).reshape(3, 4).numpy() if norm == "inf" else 1.0
    distance = MODEL.radii / dual
    run = attack_segmentation(MODEL, X, threat=Threat(norm, eps=eps, **OPEN), preset="standard")
    for outcome in run:
        assert not outcome.reached[distance > eps].any()
        assert outcome.reached[distance < 0.6 * eps].all()
        assert (outcome.nearest()[outcome.reached] >= distance[outcome.reached] * (1 - 1e-6)).all()
        assert (outcome.nearest()[outcome.reached] <= eps).all()
        assert (outcome.broken <= outcome.reached).all()
        assert not outcome.broken[distance > eps].any()


def test_one_perturbation_cannot_break_what_only_different_ones_can():
    """Two pixels on opposite sides along one direction: each is reachable, both at once are not."""
    opposite = PixelHalfSpaces([[0.5, 0.5]], dim=2)
    opposite.w[1] = -opposite.w[0]
    run = attack_segmentation(opposite, torch.zeros(1, 1, 1, 2), threat=Threat(2, eps=1.0, **OPEN))
    assert run.pixels() == {"stake": 2, "right": 2, "broken": 1, "reached": 2}
    assert (run.accuracy().value, run.survived().value) == (0.5, 0.0)


def test_scores_under_attack_follow_from_the_confirmed_maps():
    y = torch.tensor(np.broadcast_to(MODEL.truth, (2, 3, 4)).copy())
    y[:, 2, 3] = 1  # the model has it wrong
    y[:, 2, 2] = IGNORE
    run = attack_segmentation(MODEL, X, y, threat=Threat(2, eps=0.2, **OPEN), ids=[4, 9])
    assert [o.index for o in run] == [4, 9]
    # In reach is the pixel at 0.1, of class 0.
    assert run.pixels() == {"stake": 22, "right": 20, "broken": 2, "reached": 2}
    assert run.clean_accuracy() == 20 / 22
    assert run.accuracy().value == run.survived().value == 18 / 22
    expected = np.array([[7, 1, 0], [1, 2, 0]]) * 2  # true class by given class; the last column: none
    assert run.mean_iou() == pytest.approx(np.mean(class_iou(expected)))
    assert run.clean_mean_iou() == pytest.approx((8 / 9 + 2 / 3) / 2)
    assert run.counts()["broken"] == 2
    assert np.array_equal(run[0].attacked != run[0].clean, run[0].broken)


def test_nothing_in_reach_survives_and_nothing_right_is_a_clean_error():
    far = attack_segmentation(MODEL, X[:1], threat=Threat(2, eps=0.05, **OPEN))
    assert far[0].status is AttackStatus.SURVIVED
    assert far[0].strongest == -1
    assert far[0].adversarial is None
    wrong = torch.tensor(1 - MODEL.truth)[None]
    run = attack_segmentation(MODEL, X[:1], wrong, threat=Threat(2, eps=0.05, **OPEN), preset="quick")
    assert run[0].status is AttackStatus.CLEAN_ERROR
    assert run.accuracy().value == 0.0


def test_the_box_is_kept_and_the_ball_in_double_precision():
    x = torch.full((1, 1, 3, 4), 0.1)
    run = attack_segmentation(MODEL, x, threat=Threat(2, eps=0.7, bounds=(0.0, 1.0)), preset="standard")
    for attempt in run[0].attempts:
        assert attempt.inside
        assert attempt.distance <= 0.7
    assert run[0].broken.any()
    assert run[0].adversarial.min() == 0.0, "the box was reached and kept"


def test_an_outcome_comes_back_from_what_is_stored():
    first = attack_segmentation(MODEL, X[:1], threat=Threat(2, eps=1.0, **OPEN))[0]
    again = PixelAttack.of(first.to_json(), first.arrays())
    assert again.to_json() == first.to_json()
    assert all(np.array_equal(again.arrays()[k], v) for k, v in first.arrays().items())
    assert np.array_equal(again.nearest("2"), first.nearest())
    assert np.isinf(first.nearest("3")).all(), "a distance that was not measured proves nothing"


def test_known_outcomes_are_kept_and_the_same_seed_gives_the_same_attack():
    threat = Threat(2, eps=1.0, **OPEN)
    first = attack_segmentation(MODEL, X, threat=threat, preset="quick")
    seen = []
    again = attack_segmentation(
        MODEL, X, threat=threat, preset="quick", known={0: first[0]}, on_outcome=seen.append
    )
    assert again[0] is first[0]
    assert [o.index for o in seen] == [1]
    assert np.array_equal(again[1].adversarial, first[1].adversarial)
    alone = attack_segmentation(MODEL, X[1:], threat=threat, preset="quick", ids=[1])
    assert np.allclose(alone[0].adversarial, first[1].adversarial, atol=1e-6)


def test_a_pixel_that_only_single_precision_gets_wrong_is_not_broken():
    """Scores that differ by one part in 2^30 tie in float32 and do not in float64."""

    class Fine(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, x):
            zero = x[:, 0] * 0
            tiny = zero + self.one * 2.0**-30
            # Class 0 leads by 2^-30; float32 loses it in the sum, and argmax of a tie would be class 0.
            return torch.stack([(self.one + tiny) - 0.0, zero + self.one], 1).flip(1)

    model = Fine().eval()
    judge = NetworkJudge(
        BaseSegmenter(model, num_classes=2, spatial=(1, 2)), p=2.0, box=(-math.inf, math.inf)
    )
    x, label = torch.zeros(1, 1, 2), np.ones((1, 2), dtype=np.int64)
    verdict = judge.verdict("x", x, x, label, label > 0, eps=1.0, id=0, number=0)
    assert (verdict.classes == 0).all(), "float32 believes that the class has changed"
    assert not verdict.confirmed.any()


def test_candidates_outside_ball_or_box_confirm_nothing():
    segmenter = BaseSegmenter(MODEL, num_classes=2, spatial=(3, 4))
    label, x = MODEL.truth, torch.zeros(1, 3, 4)
    far = x + MODEL.w[2].reshape(3, 4)  # far beyond the pixel's own hyperplane
    for box, eps, broken in (((-9.0, 9.0), 1.01, True), ((-9.0, 9.0), 0.9, False), ((0.0, 9.0), 1.01, False)):
        verdict = NetworkJudge(segmenter, p=2.0, box=box).verdict(
            "x", x, far, label, label >= 0, eps=eps, id=0, number=0
        )
        assert verdict.confirmed[0, 2] == broken


@pytest.mark.parametrize("loss", [segpgd, masked_cross_entropy, jensen_shannon, lost_margins, weakest_first])
def test_losses_speak_only_of_the_pixels_at_stake_and_fall_with_the_labels_probability(loss):
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = scores.detach().argmax(1)
    stake = torch.zeros(2, 4, 4, dtype=torch.bool)
    stake[:, 1, :2] = True
    (gradient,) = torch.autograd.grad(loss(scores.log_softmax(1), label, stake, stake, 0.0).sum(), scores)
    assert (gradient.abs().sum(1)[~stake] == 0).all()
    falls = gradient.gather(1, label[:, None])[:, 0][stake] < 0
    assert falls.all() if loss is not weakest_first else falls.sum() == 2, "one of an image's two pixels"


def test_segpgd_weighs_wrong_pixels_more_and_more_and_the_mask_never():
    logs = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]]).log()  # the second pixel is wrong
    label, stake = torch.zeros(1, 1, 2, dtype=torch.long), torch.ones(1, 1, 2, dtype=torch.bool)
    held, right, wrong = holds(logs, label), -math.log(0.9), -math.log(0.2)
    assert held.tolist() == [[[True, False]]]
    assert holds(logs, label, gap=0.61).tolist() == [[[True, True]]], "lost by 0.6 only"
    for done in (0.0, 0.5):
        assert float(segpgd(logs, label, stake, held, done)) == pytest.approx(
            ((1 - done / 2) * right + done / 2 * wrong) / 2
        )
        assert float(masked_cross_entropy(logs, label, stake, held, done)) == pytest.approx(right / 2)
    js = np.mean([_jensen_shannon(0.9), _jensen_shannon(0.2)])
    assert float(jensen_shannon(logs, label, stake, held, 0.0)) == pytest.approx(js, rel=1e-5)


def _jensen_shannon(q):
    p, label = np.array([q, 1 - q]), np.array([1.0, 0.0])
    mix = (p + label) / 2
    return (stats.entropy(p, mix) + stats.entropy(label, mix)) / 2


def test_draws_in_parts_give_the_gradient_of_the_draws_together(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))
    x = torch.rand(2, 1, 4, 4)
    label, stake = torch.randint(3, (2, 4, 4)), torch.ones(2, 4, 4, dtype=torch.bool)
    found = []
    for most in (1 << 18, 5 * 16):  # five of the twelve draws at a time
        monkeypatch.setattr("attacks.dense.sources.MOST_PIXELS", most)
        source = Smoothed(
            Oracle(net, 2), torch.arange(2), Streams(0, [3, 5]), sigma=torch.tensor(0.3), draws=12
        )
        found.append(
            source.ascend(
                x, lambda logs, rows: segpgd(logs, label[rows], stake[rows], stake[rows], 0.3), "test"
            )
        )
    for one, parts in zip(*found, strict=True):
        assert torch.allclose(one, parts, atol=1e-6)


def test_what_cannot_be_attacked_is_refused():
    threat = Threat(2, eps=0.5, **OPEN)
    with pytest.raises(InvalidSetting, match="perturbation size"):
        attack_segmentation(MODEL, X, threat=Threat(2, **OPEN))
    with pytest.raises(InvalidSetting, match="no preset 'minimal'"):
        attack_segmentation(MODEL, X, threat=threat, preset="minimal")
    with pytest.raises(InvalidSetting, match="does not attack"):
        attack_segmentation(smoothed(), X, threat=threat, preset="standard")
    with pytest.raises(InvalidModel, match="no gradients"):
        attack_segmentation(lambda x: MODEL(x).detach(), X, threat=threat)
    with pytest.raises(InvalidModel, match="scores"):
        attack_segmentation(nn.Flatten(), X, threat=threat)
    with pytest.raises(InvalidInput, match="no images"):
        attack_segmentation(MODEL, torch.zeros(2, 12), threat=threat)
    with pytest.raises(InvalidSetting, match="holds no images"):
        SegmentationAttackRun([], threat, "quick", num_classes=2).accuracy()


# -- the smoothed segmentation --------------------------------------------------------------


def test_the_smoothed_class_changes_where_the_distance_allows_and_nowhere_else():
    """The smoothed half-space is the half-space itself: its distance does not depend on sigma."""
    run = attack_segmentation(smoothed(), X, threat=Threat(2, eps=1.0, **OPEN))
    for outcome in run:
        assert outcome.smoothed
        assert not outcome.reached[MODEL.radii >= 1.0].any()
        # The test needs a visible gap: 1000 samples at this level see about 0.2 sigma.
        assert outcome.reached[MODEL.radii < 0.6].all()
        assert (outcome.found[outcome.reached] == 1 - MODEL.truth[outcome.reached]).all()


def test_a_flip_of_the_base_network_alone_is_none_of_the_smoothed():
    def spike(x):
        side = torch.where(x.flatten(1).norm(dim=1)[:, None, None] < 0.01, -1.0, 1.0) + 0 * x[:, 0]
        return torch.stack([side, -side], 1)

    run = attack_segmentation(smoothed(spike), X, threat=Threat(2, eps=0.5, **OPEN))
    assert run.pixels() == {"stake": 24, "right": 24, "broken": 0, "reached": 0}


def test_candidates_of_a_lattice_lie_on_it_and_in_the_ball():
    model = PixelHalfSpaces(DISTANCES / 4)
    g = certify.SmoothedSegmentation(
        model, 0.25, num_classes=2, grid=1 / 16, bounds=(-4.0, 4.0), batch_size=64
    )
    run = attack_segmentation(g, X[:1], threat=Threat(2, eps=0.4, bounds=(-4.0, 4.0)))
    assert run[0].broken.any()
    steps = run[0].adversarial * 16
    assert (steps == steps.round()).all()
    assert all(a.distance <= 0.4 for a in run[0].attempts)


def test_the_tail_is_exact_and_the_level_is_shared_by_pixels_and_candidates():
    for k, n in ((0, 0), (3, 10), (10, 10), (61, 100)):
        exact = sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
        found = float(rival_tail(np.array(k), np.array(n - k)))
        assert exact <= found <= exact * (1 + 1e-8) or found == 1.0

    class Votes:
        """Every pixel's rival leads by as much as one test alone would confirm."""

        class noise:
            @staticmethod
            def tv(dim):
                return 0.0

        def votes(self, x, *, n, seed, ids):
            lead = next(k for k in range(n) if stats.binom.sf(k - 1, n, 0.5) <= 1e-3)
            return np.broadcast_to(np.array([n - lead, lead])[:, None, None], (1, 2, 3, 4)).copy()

    label, x = np.zeros((3, 4), dtype=np.int64), torch.zeros(1, 3, 4)
    one = np.zeros((3, 4), dtype=bool)
    one[0, 0] = True
    for stake, tries, confirmed in ((one, 1, 1), (one, 2, 0), (one | True, 1, 0)):
        judge = SmoothedJudge(Votes(), p=2.0, box=(-1.0, 1.0), seed=0, samples=500, alpha=1e-3, tries=tries)
        verdict = judge.verdict("x", x, x, label, stake, eps=1.0, id=0, number=0)
        assert int(verdict.confirmed.sum()) == confirmed
        with pytest.raises(ValueError, match="budget"):
            judge.verdict("x", x, x, label, stake, eps=1.0, id=0, number=tries)


def test_false_confirmations_are_rarer_than_alpha():
    """Every pixel exactly on its boundary: no class leads, and none may be confirmed to."""
    images, alpha = 300, 0.1
    g = smoothed(PixelHalfSpaces(np.zeros((3, 4))))
    judge = SmoothedJudge(
        g, p=2.0, box=(-math.inf, math.inf), seed=1, samples=100, alpha=alpha, tries=1, select=20
    )
    label, x = np.zeros((3, 4), dtype=np.int64), torch.zeros(1, 3, 4)
    found = [
        judge.verdict("x", x, x, label, label == 0, eps=0.0, id=i, number=0).confirmed.any()
        for i in range(images)
    ]
    assert sum(found) <= stats.binom.isf(1e-6, images, alpha)


# -- certificates ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified():
    return {
        "bonferroni": smoothed().certify(X, n=1000, seed=3),
        "holm": smoothed().certify(X, n=1000, radius=0.7, seed=3),
    }


def scaled(run, factor):
    """The same run with every radius multiplied: a certifier that claims too much."""
    maps = {i.record.index: dataclasses.replace(i.maps, radius=i.maps.radius * factor) for i in run}
    return SegmentationRun(run.run, maps.get)


@pytest.mark.parametrize("name", ["bonferroni", "holm"])
def test_certificates_that_are_right_lose_to_no_challenge(certified, name):
    run = certified[name]
    found = challenge_segmentation(smoothed(), run, X)
    assert run.contradictions(found) == []
    assert found.pixels()["stake"] == sum(int(i.maps.certified.sum()) for i in run)
    sizes = {a.name: a.distance for a in found[0].attempts}
    assert len(sizes) == 5
    assert max(sizes.values()) > 0.6, "the balls were searched to their edge"


@pytest.mark.parametrize(("name", "factor"), [("bonferroni", 1.8), ("holm", 3.0)])
def test_radii_that_are_too_large_are_contradicted(certified, name, factor):
    liar = scaled(certified[name], factor)
    hits = liar.contradictions(challenge_segmentation(smoothed(), liar, X))
    assert {hit.index for hit in hits} == {0, 1}
    for hit in hits:
        true_distance = MODEL.radii[hit.row, hit.column]
        assert true_distance < hit.distance <= hit.radius
        assert hit.found == 1 - hit.certified
        assert hit.to_json()["attempt"] == hit.attempt
    # The radii as they were proved are not touched by the very same perturbations.
    assert certified[name].contradictions(challenge_segmentation(smoothed(), liar, X)) == []


def test_a_class_that_the_image_itself_refutes_is_a_contradiction_at_distance_zero(certified):
    maps = {
        i.record.index: dataclasses.replace(i.maps, selected=1 - i.maps.selected)
        for i in certified["bonferroni"]
    }
    liar = SegmentationRun(certified["bonferroni"].run, maps.get)
    hits = liar.contradictions(challenge_segmentation(smoothed(), liar, X[:2]))
    assert any(hit.distance == 0.0 and hit.attempt == "the image itself" for hit in hits)


def test_radii_of_rounded_noise_that_its_formula_does_not_cover_are_contradicted():
    """The one-sigma formula applied with twice the sigma of the noise, as a wrong unit would."""
    g, honest = smoothed(), smoothed().certify(X, n=1000, seed=3)
    twice = certify.SmoothedSegmentation(MODEL, 2.0, num_classes=2, noise="gaussian", bounds=None)
    twice.noise = g.noise  # votes under sigma 1, radii for sigma 2
    lying = scaled(honest, twice.sigma_scale / g.sigma_scale)
    assert lying.contradictions(challenge_segmentation(g, lying, X))


def test_only_smoothed_outcomes_about_the_certified_class_in_the_runs_norm_contradict(certified):
    run = scaled(certified["bonferroni"], 1.8)
    found = challenge_segmentation(smoothed(), run, X)
    assert run.contradictions([dataclasses.replace(o, smoothed=False) for o in found]) == []
    other = [dataclasses.replace(o, label=np.where(o.label == IGNORE, IGNORE, 1 - o.label)) for o in found]
    assert run.contradictions(other) == []
    away = [dataclasses.replace(o, index=o.index + 50) for o in found]
    with pytest.raises(InvalidSetting, match="other images"):
        run.contradictions(away)
    in_inf = SegmentationRun(run.run, run._load)
    in_inf.settings = dict(run.settings) | {"norm": "inf"}
    for hit in in_inf.contradictions(found):
        assert hit.distance in {a.distance_linf for a in found[hit.index].attempts}
    in_inf.settings["norm"] = "3"
    assert in_inf.contradictions(found) == [], "distances in this norm were not measured"


def test_a_challenge_needs_images_and_claims(certified):
    run = certified["bonferroni"]
    with pytest.raises(InvalidInput, match="image 1 of the run"):
        challenge_segmentation(smoothed(), run, X[:1])
    nothing = smoothed(PixelHalfSpaces(np.zeros((3, 4)))).certify(X, n=30)
    with pytest.raises(InvalidInput, match="nothing to challenge"):
        challenge_segmentation(smoothed(), nothing, X)


def test_a_challenge_resumes_and_its_error_is_the_budgets(certified):
    run, seen = certified["holm"], []
    whole = challenge_segmentation(smoothed(), run, X, budget=Budget(confirm_samples=300, draws=4))
    again = challenge_segmentation(
        smoothed(), run, X, budget=Budget(confirm_samples=300, draws=4), known={0: whole[0]},
        on_outcome=seen.append,
    )  # fmt: skip
    assert [o.index for o in seen] == [1]
    assert again[1].to_json() | {"seconds": 0} == whole[1].to_json() | {"seconds": 0}
    assert pixel_maps.IGNORE == IGNORE
