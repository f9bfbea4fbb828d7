"""A run's seed is drawn unless somebody chooses it, recorded with its origin, and kept when a run goes on."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.chances import at_least, at_most, error_probability
from certify.dense.procedure import make_pixel_tests
from certify.errors import InvalidSetting, RunConflict
from certify.geometry import GaussianBall
from certify.procedures import make_procedure
from certify.seeds import Seed, recorded, settled
from certify.store import read_run
from certify.verification import verify

X = torch.tensor([[1.0, 0.2], [-0.7, 0.1], [0.4, 0.9]])


def smoothed():
    torch.manual_seed(0)
    return certify.Smoothed(
        nn.Linear(2, 2).eval(),
        0.5,
        num_classes=2,
        noise="gaussian",
        bounds=None,
        batch_size=100,
        reduce=False,
    )


def run(**options):
    return smoothed().certify(X, mode="fixed", n0=20, n=200, **options)


def segmented(**options):
    g = certify.SmoothedSegmentation(
        lambda x: torch.cat([x, 0.5 - x], dim=1), 0.25, num_classes=2, bounds=(0.0, 1.0), grid=1 / 255
    )
    return g.certify(torch.ones(2, 1, 2, 2), n0=5, n=40, **options).run


@pytest.mark.parametrize("make", [run, segmented])
def test_without_a_seed_one_of_128_bits_is_drawn_recorded_and_said(make, drawn_seeds):
    first, second = make(), make()
    for one, seed in zip((first, second), drawn_seeds, strict=True):
        assert one.settings["seed"] == str(seed.value)
        assert one.settings["seed_origin"] == "drawn"
        assert "The seed was drawn for this run." in one.guarantee
    assert first.settings["seed"] != second.settings["seed"]
    assert max(s.value for s in drawn_seeds) > 1 << 64  # misses with probability 2^-128
    again = make(seed=int(first.settings["seed"]))
    assert [r.counts for r in again] == [r.counts for r in first]
    assert "chosen by the user" in again.guarantee


@pytest.mark.parametrize("make", [run, segmented])
def test_a_run_that_goes_on_keeps_its_seed_and_where_it_came_from(make, drawn_seeds, tmp_path):
    for place, options in ((tmp_path / "drawn", {}), (tmp_path / "chosen", {"seed": 17})):
        begun = make(store=place, **options)
        seed = begun.settings["seed"]
        on = make(store=place)
        assert (on.settings["seed"], on.guarantee) == (seed, begun.guarantee)
        same = make(store=place, seed=int(seed))
        assert same.settings["seed_origin"] == begun.settings["seed_origin"]
        with pytest.raises(RunConflict, match=f'seed: "{seed}" there'):
            make(store=place, seed=int(seed) + 1)
    assert len(drawn_seeds) == 1
    assert verify(tmp_path / "drawn", level=2).ok
    assert verify(tmp_path / "chosen", level=2).ok


def test_a_directory_without_a_run_gets_a_fresh_seed(drawn_seeds, tmp_path):
    (tmp_path / "empty").mkdir()
    assert settled(None, tmp_path / "empty") == drawn_seeds[0]
    assert settled(None, tmp_path / "absent") == drawn_seeds[1]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "records.sqlite").touch()
    assert settled(None, str(tmp_path / "begun")) == drawn_seeds[2]


def test_an_open_store_hands_on_its_seed():
    store = SimpleNamespace(settings={"seed": "123", "seed_origin": "drawn"})
    assert settled(None, store) == Seed(123, "drawn")
    assert settled(123, store) == Seed(123, "drawn")
    assert settled(124, store) == Seed(124, "chosen")


@pytest.mark.parametrize("seed", [-1, 1 << 128, 0.5, "7", True, [3], math.nan])
@pytest.mark.parametrize("make", [run, segmented])
def test_what_is_no_seed_is_refused_before_anything_is_written(make, seed, tmp_path):
    with pytest.raises(InvalidSetting, match="seed"):
        make(seed=seed, store=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_whole_numbers_of_other_libraries_are_seeds():
    assert settled(np.int64(5)) == settled(torch.tensor(5)) == Seed(5, "chosen")
    assert settled((1 << 128) - 1).value == (1 << 128) - 1


@pytest.mark.parametrize("text", [None, 7, "", "-1", "x", "9" * 40, "٣", str(1 << 128)])
def test_what_a_hostile_directory_calls_a_seed_is_none(text):
    assert recorded({"seed": text}) is None
    assert recorded({"seed": "3", "seed_origin": ["drawn"]}) == Seed(3, "chosen")


@pytest.mark.parametrize(
    "alpha", [0.05, 0.001, 1 / 3, 1e-5, 1e-7, 2e-6, 0.3 / 7, 1.0000001e-3, 1e-16, 1e-19, 1e-30, 1e-250]
)
def test_printed_probabilities_never_promise_more(alpha):
    from fractions import Fraction

    said = at_least(alpha)
    left, _, missing = said.partition(" - ")
    promised = Fraction(left) - Fraction(missing or 0)
    assert promised <= 1 - Fraction(repr(alpha))
    assert said != "1"
    assert promised >= 1 - Fraction(repr(alpha)) * Fraction("1.00001") - Fraction(1, 10**17)
    assert Fraction(at_most(alpha)) >= Fraction(repr(alpha))
    assert float(at_most(alpha)) == pytest.approx(alpha, rel=1e-5)
    assert Fraction(at_most(alpha, 2)) >= Fraction(repr(alpha))


def test_a_tiny_alpha_is_promised_and_verified(tmp_path):
    for alpha in (1e-7, 1e-19):
        one = smoothed().certify(
            X, mode="fixed", n0=20, n=200, alpha=alpha, seed=1, store=tmp_path / f"{alpha}"
        )
        assert at_least(alpha) in one.guarantee
        assert verify(tmp_path / f"{alpha}", level=2).ok


def test_a_promise_of_certainty_fails_verification(tmp_path):
    from certify.store import open_run

    honest = run(alpha=1e-7, seed=1, store=tmp_path / "honest")
    for said in ("at least 1 over", "at least 1 - 1e-08 over", "at least 0.99999999 over"):
        text = honest.guarantee.replace(f"at least {at_least(1e-7)} over", said)
        assert text != honest.guarantee
        place = tmp_path / said.replace(" ", "")
        with open_run(place, honest.settings, text) as store:
            for record in read_run(tmp_path / "honest").run:
                store.add(record)
        assert not verify(place, level=2).ok


def test_a_transfer_adds_its_share_to_the_error():
    assert error_probability({"alpha": 0.001}) == 0.001
    assert error_probability({"alpha": 0.001, "transfer": {"alpha": 0.002}}) == pytest.approx(0.003)


@pytest.mark.parametrize("radius", [0.0, 0.25, 0.12345678, 1 / 3])
def test_a_tested_radius_is_named_with_all_its_digits_and_its_error_rounded_up(radius):
    plan = make_procedure("decide", sigma=1.0, radius=radius, n_max=2000)
    words = plan.guarantee().split()
    assert float(words[words.index("least") + 1]) == radius
    assert float(plan.guarantee().split("at most ")[-1].split(". ")[0]) >= plan.test.false_certification
    pixels = make_pixel_tests(GaussianBall(1.0, 2.0, 4), radius=radius)
    assert float(pixels.guarantee().split("tested at radius ")[1].split(",")[0]) == radius


@pytest.mark.parametrize("mode", ["grid", "radius"])
def test_errors_by_dynamic_programming_are_printed_rounded_up(mode):
    plan = make_procedure(
        mode, sigma=1.0, n_max=2000, alpha=1 / 300, **({"step": 0.5} if mode == "grid" else {})
    )
    said = [float(w.rstrip(".,")) for w in plan.guarantee().split("probability at most ")[1].split()[:1]]
    assert plan.tests.errors.max() <= said[0] <= plan.tests.errors.max() * (1 + 1e-5)
