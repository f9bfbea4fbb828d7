"""Pixels certified together: the corrections against closed forms, the procedure against half-spaces."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

import certify
from certify.bounds import binomial_lower
from certify.contract import IGNORE
from certify.dense import maps as pixel_maps
from certify.dense.correction import holm, most_wrong_pixels, p_values, simultaneous_lower
from certify.dense.procedure import make_pixel_tests
from certify.dense.run import class_iou
from certify.errors import InvalidCounts, InvalidInput, InvalidModel, InvalidSetting, NondeterministicModel
from certify.geometry import GaussianBall
from tests.certify.pixel_half_spaces import PixelHalfSpaces

ALPHA = 0.1
#: A correct procedure fails a coverage test here with probability below one in a million.
FALSE_ALARM = 1e-6


def smoothed(model, **options):
    defaults = {"num_classes": 2, "noise": "gaussian", "bounds": None, "batch_size": 64}
    return certify.SmoothedSegmentation(model, 1.0, **(defaults | options))


# -- the corrections ------------------------------------------------------------------------


def test_p_values_are_exact_tails_rounded_up():
    for n, p in ((7, Fraction(1, 2)), (12, Fraction(3, 4)), (10, Fraction(9, 10))):
        exact = [sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)) for k in range(n + 1)]
        found = p_values(np.arange(n + 1), n, float(p))
        assert all(Fraction(f) >= e for f, e in zip(found, exact, strict=True))
        assert np.allclose(found, [float(e) for e in exact], rtol=1e-9)


def test_impossible_votes_are_refused():
    for votes in ([-1, 3], [0, 11]):
        with pytest.raises(InvalidCounts):
            p_values(np.array(votes), 10, 0.5)


@given(st.lists(st.sampled_from([0.0, 1e-6, 1e-3, 0.01, 0.02, 0.05, 0.3, 1.0]), min_size=1, max_size=40))
def test_holm_is_the_textbook_procedure(p):
    expected = [False] * len(p)
    for j, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - j) > ALPHA:
            break
        expected[i] = True
    assert holm(np.array(p), ALPHA).tolist() == expected


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(0).uniform(size=(10, 20)) ** 6
    expected = multipletests(p.ravel(), alpha=ALPHA, method="holm")[0]
    assert 0 < expected.sum() < p.size
    assert holm(p, ALPHA).ravel().tolist() == expected.tolist()


def test_simultaneous_bounds_are_clopper_pearsons_at_a_share_of_alpha():
    votes = np.array([[0, 50], [99, 100]])
    found = simultaneous_lower(votes, 100, 0.001)
    assert found.tolist() == [[binomial_lower(int(k), 100, 0.001 / 4) for k in row] for row in votes]


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(0, 10_000), st.floats(0.0, 1.5))
def test_holm_certifies_whatever_bonferroni_certifies_at_that_radius(pixels, seed, radius):
    votes = np.random.default_rng(seed).integers(100, 201, size=(1, pixels))
    geometry = GaussianBall(1.0, 2.0, 4)
    one = make_pixel_tests(geometry, radius=radius, n=200, tv=1e-6)
    each = make_pixel_tests(geometry, n=200, tv=1e-6)
    lower = each.judge(votes)[1]
    proved = np.array([geometry.radius(float(p)) for p in lower.ravel()]).reshape(votes.shape)
    # At a tie of the two roundings (10 digits) either may be the larger.
    assert (one.judge(votes)[0] | (proved < radius * (1 + 1e-9) + 1e-12)).all()


def judged(plan, p, rng):
    """(certified, p_lower) of pixels with probabilities ``p`` that share their noise."""
    shared = rng.standard_normal((plan.n, 1)) * 0.8 + rng.standard_normal((plan.n, len(p))) * 0.6
    votes = (shared < stats.norm.ppf(p)).sum(axis=0)[None]
    return plan.judge(votes), votes


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_family_wise_error_is_at_most_alpha(correction):
    """30 pixels at the threshold of the radius, some far above: how often is any of the former certified?"""
    geometry, rounds = GaussianBall(1.0, 2.0, 4), 1500
    plan = make_pixel_tests(geometry, radius=0.7 if correction == "holm" else None, n=60, alpha=ALPHA)
    p = np.concatenate([np.full(30, stats.norm.cdf(0.7)), np.full(20, 0.995)])
    rng, errors, alone = np.random.default_rng(5), 0, 0
    for _ in range(rounds):
        (certified, lower), votes = judged(plan, p, rng)
        beyond = certified[0] if correction == "holm" else lower[0] > p + 1e-12
        errors += beyond[:30].any() if correction == "holm" else beyond.any()
        alone += (p_values(votes, plan.n, float(p[0]))[0, :30] <= ALPHA).any()
    most = stats.binom.isf(FALSE_ALARM, rounds, ALPHA)
    assert errors <= most
    assert alone > most, "without a correction the error is far larger, and this test would see it"


# -- some wrong pixels allowed --------------------------------------------------------------


@given(st.lists(st.sampled_from([1e-6, 1e-3, 0.01, 0.02, 0.05, 0.3, 1.0]), min_size=1, max_size=40),
       st.integers(0, 6))  # fmt: skip
def test_the_step_down_procedure_is_lehmann_and_romanos(p, wrong):
    k, s, expected = wrong + 1, len(p), [False] * len(p)
    for j, i in enumerate(sorted(range(s), key=lambda i: p[i]), start=1):
        if Fraction(p[i]) > Fraction(ALPHA) * k / (s if j <= k else s + k - j) * Fraction(1 + 1e-12):
            break
        expected[i] = True
    assert holm(np.array(p), ALPHA, wrong=wrong).tolist() == expected


def test_the_allowance_is_used_up_and_not_exceeded_by_the_worst_law():
    """With probability alpha k of s true hypotheses have k alpha / s, which is as often as they may."""
    s, k = 50, 4
    p = np.ones(s)
    p[:k] = k * ALPHA / s
    assert holm(p, ALPHA, wrong=k - 1).sum() == k
    assert holm(p * (1 + 1e-9), ALPHA, wrong=k - 1).sum() == 0
    assert holm(p, ALPHA, wrong=k - 2).sum() == 0


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_more_wrong_pixels_than_allowed_are_as_rare_as_alpha(correction):
    geometry, rounds = GaussianBall(1.0, 2.0, 4), 1500
    plan = make_pixel_tests(
        geometry, radius=0.7 if correction == "holm" else None, n=60, alpha=ALPHA, tolerate=0.06
    )
    p = np.concatenate([np.full(30, stats.norm.cdf(0.7)), np.full(20, 0.995)])
    rng, many, some = np.random.default_rng(6), 0, 0
    for _ in range(rounds):
        certified, lower = plan.judge(rng.binomial(plan.n, p)[None])
        wrong = certified[0][:30].sum() if correction == "holm" else (lower[0] > p + 1e-12).sum()
        many += wrong > 3
        some += wrong > 0
    most = stats.binom.isf(FALSE_ALARM, rounds, ALPHA)
    assert many <= most
    assert some > most, "one wrong pixel is no error here, and must be more frequent"


def test_two_megapixels_with_a_thousandth_of_them_wrong_need_49_samples_and_75_with_none():
    geometry, radius = GaussianBall(1.0, 2.0, 4), stats.norm.ppf(0.75)
    for tolerate, n in ((0.001, 49), (0.0, 75)):
        for samples, enough in ((n, True), (n - 1, False)):
            plan = make_pixel_tests(geometry, radius=radius - 1e-9, n=samples, tolerate=tolerate)
            assert plan.judge(np.full((1000, 2000), samples))[0].all() == enough


def test_a_share_counts_as_it_is_printed():
    assert [most_wrong_pixels(share, 1000) for share in (0.0, 0.0009, 0.001, 0.003, 0.007, 0.1)] == [
        0, 0, 1, 3, 7, 100]  # fmt: skip
    assert most_wrong_pixels(0.29, 100) == 29  # 0.29 * 100 is below 29 in floating point


@pytest.mark.parametrize("tolerate", [-0.1, 0.6, float("nan"), float("inf")])
def test_shares_that_say_nothing_are_refused(tolerate):
    with pytest.raises(InvalidSetting, match="tolerate"):
        smoothed(PixelHalfSpaces([[1.0, 1.0]])).certify(torch.zeros(1, 1, 1, 2), n=20, tolerate=tolerate)


def test_the_guarantee_and_contradictions_know_how_many_may_be_wrong():
    g = smoothed(PixelHalfSpaces(np.full((10, 10), 1.4, dtype=np.float32)))
    strict, loose = (g.certify(torch.zeros(1, 1, 10, 10), n=60, n0=10, radius=0.7, tolerate=t, seed=1)
                     for t in (0.0, 0.02))  # fmt: skip
    assert "all of them together, its" in strict.guarantee
    assert "tolerate" not in strict.settings["mode_options"]
    assert "all of them together but at most 2 % of the image's pixels, its" in loose.guarantee
    assert loose[0].maps.certified.sum() > strict[0].maps.certified.sum()
    certified = np.flatnonzero(loose[0].maps.certified)
    for pixels, contradictions in ((2, 0), (3, 3)):
        found = np.full((10, 10), -1)
        found.flat[certified[:pixels]] = 1 - loose[0].maps.selected.flat[certified[:pixels]]
        assert len(loose.contradictions([Changed(found, loose[0].maps.selected)])) == contradictions


class Changed:
    """What an attack of an image says: which class it moved each pixel to (-1: none), at distance 0.1."""

    smoothed, index = True, 0
    attempts = (type("Attempt", (), {"name": "by hand"}),)

    def __init__(self, found, label):
        self.found, self.label, self.by = found, label, np.zeros_like(found)

    def nearest(self, norm):
        return np.full(self.found.shape, 0.1)


# -- half-spaces, end to end ----------------------------------------------------------------


@pytest.mark.parametrize("radius", [None, 0.8])
def test_no_pixel_of_an_image_is_certified_beyond_its_distance(radius):
    images, rng = 150, np.random.default_rng(3)
    distances = rng.choice([-1.4, -0.8, -0.75, 0.3, 0.8, 1.4, 2.2], size=(4, 4)).astype(np.float32)
    model = PixelHalfSpaces(distances)
    g = smoothed(model)
    run = g.certify(torch.zeros(images, 1, 4, 4), alpha=ALPHA, n0=20, n=200, radius=radius, seed=9)
    wrong = sum(model.violated(image.maps) for image in run)
    assert wrong <= stats.binom.isf(FALSE_ALARM, images, ALPHA)
    far = model.radii > 1.3
    assert np.mean([image.maps.certified[far].mean() for image in run]) > 0.98
    if radius is None:
        ratios = [image.maps.radius[far] / model.radii[far] for image in run]
        assert 0.6 < np.median(ratios) < 1.0
    else:
        assert {float(r) for image in run for r in image.maps.radius.ravel()} <= {0.0, 0.8}


def test_the_oracle_would_see_a_radius_that_is_too_large():
    model = PixelHalfSpaces([[0.5, 0.5], [0.5, 0.5]])
    maps = smoothed(model).certify(torch.zeros(1, 1, 2, 2), n=500)[0].maps
    assert not model.violated(maps)
    maps.radius[maps.certified] *= 3
    assert model.violated(maps)


def test_the_noises_own_error_is_subtracted():
    geometry, votes = GaussianBall(1.0, 2.0, 4), np.full((1, 9), 95)
    plain, worse = (make_pixel_tests(geometry, n=100, tv=tv) for tv in (0.0, 0.2))
    assert np.allclose(plain.judge(votes)[1] - worse.judge(votes)[1], 0.2)
    one, harder = (make_pixel_tests(geometry, radius=0.84, n=100, tv=tv) for tv in (0.0, 0.1))
    assert one.judge(votes)[0].all()
    assert not harder.judge(votes)[0].any()


def test_lattice_noise_is_the_default_and_its_radius_is_the_geometrys():
    g = certify.SmoothedSegmentation(
        PixelHalfSpaces(np.full((3, 3), 0.9)), 0.25, num_classes=2, batch_size=32
    )
    x = torch.full((1, 1, 3, 3), 51 / 255)
    run = g.certify(x, n=300, seed=1)
    assert run.settings["noise"] == "lattice"
    assert run.settings["mode_options"]["tv"] > 0
    maps, geometry = run[0].maps, GaussianBall(0.25, 2.0, 9)
    lower = simultaneous_lower(maps.votes, 300, 0.001) - run.settings["mode_options"]["tv"]
    assert maps.radius.ravel().tolist() == [geometry.radius(float(p)) for p in lower.ravel()]
    with pytest.raises(InvalidInput, match="not on the grid"):
        g.certify(x + 0.001, n=10)


# -- the base segmenter is a fixed function -------------------------------------------------


class Jittery:
    """Rounds differently in a batch than alone, by up to a millionth of its scores."""

    def __init__(self, size: float) -> None:
        self.size = size

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Every third sample or so has a pixel that is as good as tied.
        side = torch.where(x.abs() < 0.02, 0.0, x)[:, 0]
        jitter = self.size * (len(x) % 7 - 3) if len(x) > 1 else 0.0
        return torch.stack([torch.ones_like(side) + jitter, 1 + side], dim=1)


def test_votes_do_not_depend_on_the_batch_size():
    found, looks = [], []
    for size in (1, 3, 16):
        g = smoothed(Jittery(1e-7), batch_size=size)
        run = g.certify(torch.zeros(2, 1, 4, 4), n0=20, n=150, seed=4)
        found.append([image.record.details["maps"] for image in run])
        looks.append(g.classifier.alone)
    assert found[0] == found[1] == found[2]
    assert min(looks) > 20, "ties were broken by a second look"


def test_a_model_that_mixes_its_batch_is_refused():
    with pytest.raises(NondeterministicModel):
        smoothed(Jittery(1e-2), batch_size=16).certify(torch.zeros(2, 1, 4, 4), n=50)


def test_a_pixel_without_a_finite_score_votes_for_no_class():
    def broken(x):
        scores = torch.stack([x[:, 0] * 0 + 1, x[:, 0] * 0], dim=1)
        scores[:, 0, 0, 0] = torch.where(x[:, 0, 0, 0] > 0.5, torch.nan, 1.0)
        scores[:, 1, 1, 1] = torch.inf
        return scores

    maps = smoothed(broken).certify(torch.zeros(1, 1, 2, 2), n=400, seed=2)[0].maps
    expected = stats.norm.cdf(0.5)
    assert abs(maps.votes[0, 0] / 400 - expected) < 5 * (expected * (1 - expected) / 400) ** 0.5
    assert maps.votes[1, 1] == 0
    assert not maps.certified[1, 1]
    assert maps.votes[0, 1] == 400


def test_a_model_that_breaks_the_contract_is_refused():
    x = torch.zeros(1, 1, 4, 4)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Dropout()).train()
    with pytest.raises(InvalidModel, match="training mode"):
        smoothed(net)
    for wrong in (lambda x: x.flatten(1)[:, :2], lambda x: torch.zeros(len(x), 3, 4, 4),
                  lambda x: torch.zeros(len(x), 2, 2, 2)):  # fmt: skip
        with pytest.raises(InvalidModel, match="returned shape"):
            smoothed(wrong).certify(x)
    with pytest.raises(InvalidInput, match="no images"):
        smoothed(lambda x: x).certify(torch.zeros(2, 5))
    with pytest.raises(InvalidInput, match="label maps"):
        smoothed(PixelHalfSpaces(np.ones((4, 4)))).certify(x, torch.zeros(1, 2, 2, dtype=torch.int64))


def test_weights_that_change_afterwards_are_noticed():
    net = torch.nn.Conv2d(1, 2, 1).eval()
    g = smoothed(net)
    with torch.no_grad():
        net.weight += 1
    with pytest.raises(InvalidModel, match="changed"):
        g.certify(torch.zeros(1, 1, 2, 2), n=10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"correction": "sidak"}, "unknown"),
        ({"correction": "holm"}, "cannot be tested"),
        ({"correction": "bonferroni", "radius": 0.1}, "no meaning"),
        ({"radius": -1.0}, "cannot be tested"),
        ({"radius": float("nan")}, "cannot be tested"),
        ({"radius": 50.0}, "never be certified"),
        ({"alpha": 0.7}, "alpha"),
        ({"n": 0}, "n = 0"),
        ({"n0": 0}, "n0 = 0"),
    ],
)
def test_impossible_plans_are_refused(options, match, tmp_path):
    with pytest.raises(InvalidSetting, match=match):
        smoothed(PixelHalfSpaces(np.ones((2, 2)))).certify(
            torch.zeros(1, 1, 2, 2), store=tmp_path / "run", **options
        )
    assert not (tmp_path / "run").exists()


def test_a_segmenter_is_no_classifier_and_the_other_way_round():
    class Header:
        num_classes, low, high, grid = 2, 0.0, 1.0, 1 / 255

        def __init__(self, task):
            self.task = task

    net = torch.nn.Conv2d(1, 2, 1).eval()
    object.__setattr__(net, "certify_header", Header("segmentation"))
    with pytest.raises(InvalidSetting, match="segmenter"):
        certify.Smoothed(net, 0.25)
    object.__setattr__(net, "certify_header", Header("classification"))
    with pytest.raises(InvalidSetting, match="no segmenter"):
        certify.SmoothedSegmentation(net, 0.25)


def test_classes_and_votes_that_the_maps_cannot_hold_are_refused():
    """Class 65 535 is the last one that 16 bits hold; one more would come back as class 0."""

    def last(classes):
        return lambda x: torch.cat([x.new_zeros(len(x), classes - 1, 1, 2), x * 0 + 1], dim=1)

    maps = smoothed(last(1 << 16), num_classes=1 << 16).certify(torch.zeros(1, 1, 1, 2), n0=4, n=40)[0].maps
    assert maps.certified.all()
    assert maps.classes.tolist() == [[65_535, 65_535]]
    with pytest.raises(InvalidSetting, match="65,537 classes"):
        smoothed(last((1 << 16) + 1), num_classes=(1 << 16) + 1)
    with pytest.raises(InvalidSetting, match="cannot be counted"):
        make_pixel_tests(GaussianBall(1.0, 2.0, 4), n=1 << 32)
    assert make_pixel_tests(GaussianBall(1.0, 2.0, 4), n=(1 << 32) - 1).n == 4_294_967_295


# -- noise, scores --------------------------------------------------------------------------


def test_an_images_maps_depend_on_its_id_alone():
    g = smoothed(PixelHalfSpaces(np.full((2, 2), 0.4)))
    x = torch.zeros(3, 1, 2, 2)
    whole = g.certify(x, n=100, seed=5, ids=[4, 7, 9])
    part = g.certify(x[1:2], n=100, seed=5, ids=[7])
    other = g.certify(x[1:2], n=100, seed=6, ids=[7])
    assert part[0].record.details == whole[1].record.details
    assert other[0].record.details["maps"] != part[0].record.details["maps"]
    assert whole[0].maps.digest() != whole[1].maps.digest()


def test_abstaining_pixels_count_against_the_scores():
    assert pixel_maps.IGNORE == IGNORE
    model = PixelHalfSpaces([[2.0, 2.0, -2.0, -2.0], [0.0, 2.0, 2.0, 2.0]])
    y = torch.tensor([[[0, 0, 1, 0], [0, 1, IGNORE, IGNORE]]])
    run = smoothed(model).certify(torch.zeros(1, 1, 2, 4), y, n=300, seed=1)
    assert run[0].maps.classes.tolist() == [[0, 0, 1, 1], [-1, 0, 0, 0]]
    score = run.score()
    # Known pixels of class 0: two right, one abstains, one goes to class 1; class 1: one right, one missed.
    assert (score.pixels, score.labelled) == (8, 6)
    assert score.accuracy == 3 / 6
    assert score.abstained == pytest.approx(1 / 8)
    assert score.class_iou == (2 / 5, 1 / 3)
    assert score.mean_iou == pytest.approx((2 / 5 + 1 / 3) / 2)
    assert run.certified_correct([0.0, 1.0, 9.0])[0].value == 0.5
    assert [e.value for e in run.certified_correct([9.0])] == [0.0]
    assert run.certified_share([0.0])[0] == pytest.approx(7 / 8)


def test_iou_of_a_class_that_never_occurs_is_none():
    assert class_iou(np.array([[3, 1, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0]])) == (3 / 5, 2 / 3, None)


def test_scores_need_labels():
    run = smoothed(PixelHalfSpaces(np.ones((2, 2)))).certify(torch.zeros(1, 1, 2, 2), n=20)
    for ask in (run.score, run.certified_correct):
        with pytest.raises(InvalidSetting, match="label"):
            ask()


def test_a_segmentation_run_has_no_radii_for_all_inputs_and_no_contradicting_attacks():
    run = smoothed(PixelHalfSpaces(np.full((2, 2), 2.0))).certify(torch.zeros(1, 1, 2, 2), n=200)

    class Outcome:
        smoothed, index, status, prediction, distance, norm = True, 0, "broken", 1, 0.0, "2"

    with pytest.raises(InvalidSetting, match="all inputs together"):
        run.run.simultaneous()
    with pytest.raises(InvalidSetting, match="segmentation run"):
        run.run.contradictions([Outcome()])
