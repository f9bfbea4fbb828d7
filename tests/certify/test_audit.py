"""A model that is no fixed function of one input is refused, whatever it depends on; an honest one never."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify import registry
from certify.audits import ROWS
from certify.errors import NondeterministicModel
from certify.inside.effective_sigma import NoiseStage
from certify.inside.internal_noise import SmoothedInside
from certify.sampling.audit import Answer, Audit, disagreement, flip_bound, single
from certify.sampling.classifier import BaseClassifier
from certify.sampling.start import among
from certify.sampling.tally import Votes
from certify.store import open_run, read_run, records_digest
from certify.transfer import transfer
from certify.verification import verify
from tests.certify import shifty_models as shifty

DARK_AND_BRIGHT, FEW, EASY_AND_HARD = shifty.images(12), shifty.images(9)[6:], shifty.easy_and_hard(12)
#: By what a model answers: the model, its inputs and sigma.
SHIFTY = {
    "its batch, from the ninth input on": (shifty.FromTheNinth, DARK_AND_BRIGHT, 0.25),
    "how often it was called": (lambda: shifty.AfterCalls(150), FEW, 0.25),
    "the largest value of its batch": (shifty.LargestOfTheBatch, DARK_AND_BRIGHT, 0.25),
    "torch's generator": (shifty.ReadsTheGenerator, FEW, 0.25),
    "torch's generator, which it seeds": (shifty.SeedsTheGenerator, FEW, 0.25),
    "whether all of its batch are confident": (shifty.EarlyExit, EASY_AND_HARD, 0.15),
}
MORE = {
    "numpy's generator": (shifty.ReadsNumpysGenerator, FEW, 0.25),
    "Python's generator": (shifty.ReadsPythonsGenerator, FEW, 0.25),
    "the generator's seed": (shifty.PeeksAtTheSeed, FEW, 0.25),
    "whether it is alone": (shifty.AloneOrNot, FEW, 0.25),
    "the place in a large batch": (shifty.FirstRow, FEW, 0.25),
    "the clock": (lambda: shifty.ByTheClock(0.3), shifty.images(40), 0.25),
    "what is left in its buffer": (lambda: shifty.OverwritesItsAnswer(drift=True), FEW, 0.25),
    "the default dtype, which it sets": (shifty.ChangesASetting, FEW, 0.25),
    "the calls of its thread": (shifty.ThreadLocal, DARK_AND_BRIGHT, 0.25),
}


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
    torch.set_default_dtype(dtype)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def certified(make, x, sigma, *, seed, n_max=3_000, **settings):
    g = certify.Smoothed(make().eval(), sigma, num_classes=2, **settings)
    return g.certify(x, n_max=n_max, seed=seed)


@pytest.mark.parametrize("by", SHIFTY)
def test_a_model_that_is_no_fixed_function_is_refused(by, threads):
    with pytest.raises(NondeterministicModel):
        certified(*SHIFTY[by], seed=1, batch_size=64)


@pytest.mark.parametrize("by", MORE)
def test_a_model_may_depend_on_nothing_but_its_input(by, threads):
    with pytest.raises(NondeterministicModel):
        certified(*MORE[by], seed=1, batch_size=64)


def test_a_refused_input_leaves_nothing_and_takes_nothing_with_it(tmp_path):
    """Eight inputs are honest, the ninth is not; the probe sees none of the latter."""
    g = certify.Smoothed(shifty.FromTheNinth().eval(), 0.05, num_classes=2, batch_size=64)
    g.certify(DARK_AND_BRIGHT[:8], n_max=500, seed=3, store=tmp_path)
    with pytest.raises(NondeterministicModel, match="on input 8") as caught:
        g.certify(DARK_AND_BRIGHT, n_max=500, seed=3, store=tmp_path)
    assert "evaluated in a batch and alone" in caught.value.why
    kept = read_run(tmp_path).run
    assert [r.index for r in kept] == list(range(8))
    assert all(r.details["audit"] == {"rows": ROWS, "disagreements": 0} for r in kept)


@pytest.mark.parametrize(
    ("mode", "scores"),
    [("radius", "votes"), ("decide", "votes"), ("fixed", "distribution"), ("radius", "soft")],
)
def test_every_record_says_how_many_rows_were_audited(mode, scores, tmp_path):
    options: dict = {"radius": 0.1} if mode == "decide" else {"n": 9_000} if mode == "fixed" else {}
    runs = []
    for size in (7, 64):
        g = certify.Smoothed(shifty.Plain().eval(), 0.25, num_classes=2, batch_size=size)
        runs.append(
            g.certify(
                FEW, mode=mode, scores=scores, n_max=9_000, seed=2, store=tmp_path / str(size), **options
            )
        )
    assert records_digest(runs[0]) == records_digest(runs[1])
    for record in runs[0]:
        assert record.details["audit"] == {"rows": ROWS + record.samples // 4096, "disagreements": 0}
    found = verify(tmp_path / "7", level=2)
    assert found.ok
    [check] = [c for c in found.checks if c.name == "audit"]
    assert "none counted otherwise" in check.detail
    assert "evaluated again one at a time" in runs[0].guarantee


def test_few_samples_are_all_audited():
    g = certify.Smoothed(shifty.Plain().eval(), 0.25, num_classes=2, batch_size=4)
    run = g.certify(FEW, mode="fixed", n0=2, n=4)
    assert [r.details["audit"]["rows"] for r in run] == [6, 6, 6]


def forged(path, change):
    """The run with its settings or first record changed, all hashes made to agree."""
    stored = read_run(path)
    settings, records = dict(stored.settings), list(stored.run)
    change(settings, records)
    with open_run(path.parent / "forged", settings, stored.guarantee) as store:
        for name, body in stored.documents.items():
            store.put_document(name, body)
        for record in records:
            store.add(record)
    return verify(path.parent / "forged", level=2)


def without_the_audit(settings, records):
    del settings["audit"]


def of_fewer_rows(settings, records):
    settings["audit"] = {"rows": 1}


def one_was_not_audited(settings, records):
    details = {k: v for k, v in records[0].details.items() if k != "audit"}
    records[0] = dataclasses.replace(records[0], details=details)


def one_disagreed(settings, records):
    details = records[0].details | {"audit": {"rows": 9, "disagreements": 1}}
    records[0] = dataclasses.replace(records[0], details=details)


def one_by_a_word(settings, records):
    details = records[0].details | {"audit": {"rows": "many", "disagreements": 0}}
    records[0] = dataclasses.replace(records[0], details=details)


@pytest.mark.parametrize(
    "change", [without_the_audit, of_fewer_rows, one_was_not_audited, one_disagreed, one_by_a_word]
)
def test_a_run_that_was_not_audited_as_it_says_does_not_hold(change, tmp_path):
    g = certify.Smoothed(shifty.Plain().eval(), 0.25, num_classes=2, batch_size=64)
    g.certify(FEW, n_max=500, seed=2, store=tmp_path / "run")
    assert verify(tmp_path / "run", level=2).ok
    assert [c.name for c in forged(tmp_path / "run", change).failures] == ["audit"]


def test_a_run_from_before_there_were_audits_is_verified(tmp_path):
    g = certify.Smoothed(shifty.Plain().eval(), 0.25, num_classes=2, batch_size=64)
    run = g.certify(FEW, n_max=500, seed=2, store=tmp_path / "run")
    plan = read_run(tmp_path / "run").documents["plan"]
    settings = {k: v for k, v in run.settings.items() if k != "audit"}
    with open_run(tmp_path / "old", settings, run.guarantee.partition(" Votes are counted")[0]) as store:
        store.put_document("plan", plan)
        for record in run:
            details = {k: v for k, v in record.details.items() if k != "audit"}
            store.add(dataclasses.replace(record, details=details))
    assert verify(tmp_path / "old", level=2).ok


# -- everything that counts votes is audited -------------------------------------------------------------


@pytest.mark.parametrize("ask", ["predict", "score_histograms"])
def test_predictions_and_replays_are_audited(ask):
    g = certify.Smoothed(shifty.FromTheNinth().eval(), 0.05, num_classes=2, batch_size=64)
    options = {"bins": 10} if ask == "score_histograms" else {}
    getattr(g, ask)(DARK_AND_BRIGHT[:8], n=200, seed=1, **options)
    with pytest.raises(NondeterministicModel, match="on input 8"):
        getattr(g, ask)(DARK_AND_BRIGHT, n=200, seed=1, **options)


class LooksAround(nn.Module):
    """A segmenter that looks at the images beside its own, where they are bright."""

    def forward(self, x):
        z = x[:, 0] - 0.5
        z = z + (0.3 if len(x) > 1 and bool((x.mean((1, 2, 3)) > 0.6).any()) else 0.0)
        return torch.stack((-z, z), dim=1)


def test_segmentations_are_audited(tmp_path):
    x = torch.full((3, 1, 6, 6), 60 / 255)
    x[2] = 200 / 255
    g = certify.SmoothedSegmentation(LooksAround().eval(), 0.1, num_classes=2, batch_size=16)
    run = g.certify(x[:2], n0=20, n=60, store=tmp_path)
    assert all(image.record.details["audit"] == {"rows": ROWS, "disagreements": 0} for image in run)
    assert verify(tmp_path, level=2).ok
    with pytest.raises(NondeterministicModel, match="on input 2"):
        g.certify(x, n0=20, n=60, store=tmp_path)
    with pytest.raises(NondeterministicModel, match="on input 7"):
        g.votes(x[2:], n=40, seed=1, ids=[7])


class NoisyInside(shifty.Plain):
    input_shape = (16,)

    def noise_stages(self):
        return [NoiseStage(0.2, 1.0, 16)]

    def noisy_logits(self, x, normals):
        state = x + 0.2 * normals
        z = self.side(state)
        coupled = (state.mean(1) > 0.42) & (len(x) > 1)
        return shifty.two(torch.where(coupled, z.abs() + 0.1, z))


def test_noise_inside_the_network_is_audited():
    g = SmoothedInside(NoisyInside().eval(), num_classes=2, bounds=None, batch_size=32)
    assert g.certify(DARK_AND_BRIGHT[:8], n_max=200)[0].details["audit"]["rows"] == ROWS
    with pytest.raises(NondeterministicModel, match=r"on input (8|9|10|11)\b"):
        g.certify(DARK_AND_BRIGHT, n_max=200)


def test_flips_are_counted_between_fixed_functions_only():
    """Alone the model is a fixed function; in batches it is one for the first input only."""
    x, model = DARK_AND_BRIGHT[[0, 9]], shifty.FromTheNinth().eval()
    run = certify.Smoothed(model, 0.05, num_classes=2, batch_size=1).certify(x, n_max=60, seed=3)
    a, b, one = (certify.Smoothed(model, 0.05, num_classes=2, batch_size=size) for size in (64, 64, 1))
    assert len(transfer(run, one, one, x, samples=50, seed=4)) == 2
    with pytest.raises(NondeterministicModel, match="on input 1"):
        transfer(run, a, b, x, samples=50, seed=4)


# -- what an audit makes of numbers ----------------------------------------------------------------------


def answer(*scores, cell=0, alone=False, close=False, scale=1.0):
    return Answer(0, np.array(scores), np.array([cell]), alone, close, scale)


def test_what_is_a_disagreement():
    once = answer(1.0, 0.5)
    assert disagreement(once, answer(1.0 + 5e-4, 0.5, alone=True), 1e-3) is None
    assert "scores differ" in disagreement(once, answer(1.0 + 5e-3, 0.5, alone=True), 1e-3)
    assert "class 0 and alone it is of class 1" in disagreement(
        once, answer(1.0, 0.5, cell=1, alone=True), 1e-3
    )
    assert "finite" in disagreement(once, answer(np.nan, 0.5, alone=True), 1e-3)
    assert disagreement(answer(np.nan, 0.5), answer(np.nan, 0.5, alone=True), 1e-3) is None


def test_only_rows_that_were_decided_alone_can_tie():
    again = answer(1.0, 1.0 - 1e-7, cell=1, alone=True, close=True)
    assert disagreement(answer(1.0, 1.0, cell=0, alone=True), again, 1e-3) is None
    assert disagreement(answer(1.0, 1.0, cell=0), again, 1e-3) is not None
    sure = answer(1.0, 1.0 - 1e-7, cell=1, alone=True)
    assert disagreement(answer(1.0, 1.0, cell=0, alone=True), sure, 1e-3) is not None


def test_rows_are_spread_over_the_samples_and_change_with_key_and_counts():
    model = BaseClassifier(shifty.Plain().eval(), num_classes=2)
    audits = {s: Audit(model, Votes(2), seed=s, purpose=0, anchors=None) for s in (1, 2)}
    looks = [(0, 64), (64, 900), (964, 30_000), (30_964, 69_036)]
    n = 100_000
    picked = set()
    for seed, audit in audits.items():
        kept = [answer() for _ in ()]
        for start, count in looks:
            found = audit.candidates(5, start, count)
            assert found == audit.candidates(5, start, count)
            assert all(start <= k < start + count for k in found)
            assert len(set(found)) == len(found)
            kept += [Answer(k, np.zeros(2), np.zeros(1)) for k in found]
        for counts in ([n, 0, 0], [n - 1, 1, 0]):
            rows = sorted(a.sample for a in audit.chosen(5, kept, np.array(counts), n))
            assert len(rows) == len(set(rows)) == ROWS + n // 4096
            share = n / len(rows)
            assert all(abs(k - (i + 0.5) * share) < 2 * share for i, k in enumerate(rows))
            picked.add((seed, *rows))
    assert len(picked) == 4


def test_the_flip_bound_is_that_of_rows_without_a_flip():
    assert flip_bound(0, 1e-3) == 1.0
    q = flip_bound(3_000, 1e-3)
    assert (1 - q) ** 3_000 == pytest.approx(1e-3)
    assert q == pytest.approx(0.0023, rel=0.01)


def test_the_probe_draws_from_all_inputs():
    assert among(5, seed=1) == [0, 1, 2, 3, 4]
    drawn = [among(1_000, seed=s) for s in range(200)]
    assert all(len(set(d)) == 32 for d in drawn)
    # Of 200 draws of 32 among 1,000 each misses an input with probability .968: all 200 with .0015.
    seen = {i for d in drawn for i in d}
    assert len(seen) > 990
    with pytest.raises(NondeterministicModel):
        certified(shifty.FromTheNinth, shifty.images(32), 0.25, seed=1, n_max=50)


# -- honest models ------------------------------------------------------------------------------------


def forest():
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    x = rng.random((200, 16))
    found = RandomForestClassifier(20, random_state=0).fit(x, (x.mean(1) > 0.5).astype(int))
    return certify.wrap(
        lambda rows: torch.from_numpy(found.predict_proba(rows.numpy()).astype(np.float32)),
        scores="probabilities",
    )


class KeepsBooks(shifty.Plain):
    """Counts its calls, remembers its last batch, fills a table the first time: none of it matters."""

    def __init__(self):
        super().__init__()
        self.calls, self.last, self.table = 0, None, None

    def forward(self, x):
        self.calls += 1
        self.last = x
        self.table = torch.ones(16) if self.table is None else self.table
        return shifty.two(self.side(x * self.table))


@pytest.mark.parametrize("make", [forest, KeepsBooks, lambda: shifty.OverwritesItsAnswer(drift=False)])
@pytest.mark.parametrize("seed", [1, 2])
def test_honest_models_of_every_kind_are_never_refused(make, seed, threads):
    run = certified(make, FEW, 0.25, seed=seed, n_max=600, batch_size=64)
    assert len(run) == 3


def honest(name, seed):
    """A run of one of the product's own networks, freshly drawn."""
    shape = (3, 16, 16) if name in ("resnet", "global-cifar") else (1, 16, 16)
    torch.manual_seed(seed)
    net = registry.architecture(name)(num_classes=3, input_shape=shape).eval()
    x = torch.full((1, *shape), 100 / 255)
    if name == "unet":
        g = certify.SmoothedSegmentation(net, 0.25, num_classes=3, batch_size=8)
        return g.certify(x, n0=8, n=16, seed=seed)
    return certify.Smoothed(net, 0.25, num_classes=3, batch_size=16).certify(x, n_max=60, seed=seed)


@pytest.mark.parametrize("name", registry.names())
def test_honest_networks_are_never_refused(name, one_thread):
    assert len(honest(name, seed=1)) == 1


def test_random_states_of_the_process_are_left_as_they_were():
    model = shifty.Plain()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    certified(lambda: model, FEW, 0.25, seed=1, n_max=50, batch_size=16)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected  # noqa: NPY002


class AsksForTheMode(shifty.Plain):
    def forward(self, x):
        return shifty.two(self.side(x) + (0.2 if torch.is_grad_enabled() else 0.0))


def test_a_model_is_the_same_whether_gradients_are_recorded_or_not():
    with pytest.raises(NondeterministicModel, match="where gradients are recorded"):
        certified(AsksForTheMode, FEW, 0.25, seed=1, batch_size=16)


def sum_against(shift: float, size: int) -> nn.Linear:
    """Scores (shift - sum of x, sum of x - shift): of inputs whose sum is ``shift`` only noise is left."""
    model = nn.Linear(size, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, size))
        model.bias.copy_(torch.tensor([shift, -shift]))
    return model.eval()


@pytest.mark.parametrize("sigma", [0.002, 0.02])
@pytest.mark.parametrize(("size", "noise"), [(48, "lattice"), (3072, "lattice"), (3072, "gaussian")])
def test_a_network_whose_large_terms_cancel_is_not_refused(sigma, size, noise):
    x = torch.cat([torch.ones(4, size // 2), torch.zeros(4, size // 2)], dim=1)
    for seed in range(10):
        g = certify.Smoothed(
            sum_against(size / 2, size), sigma, num_classes=2, noise=noise, reduce=False, batch_size=64
        )
        assert len(g.certify(x, n_max=500, seed=seed)) == 4


class Follows(nn.Module):
    """Adds a fiftieth of the last row's scores to every row's."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        out = self.inner(x)
        return out + 0.02 * out[-1:]


def test_rows_that_are_coupled_are_refused_though_their_terms_cancel():
    g = certify.Smoothed(Follows(sum_against(24, 48)).eval(), 0.002, num_classes=2, batch_size=64)
    with pytest.raises(NondeterministicModel, match="rest of the batch"):
        g.certify(torch.cat([torch.ones(4, 24), torch.zeros(4, 24)], dim=1), n_max=500, seed=1)


class OtherInFloat64(Follows):
    """Its float64 answers are far from the others, as if these had large rounding errors."""

    def forward(self, x):
        return super().forward(x) + (100.0 if x.dtype == torch.float64 else 0.0)


def test_another_function_in_float64_excuses_nothing():
    g = certify.Smoothed(OtherInFloat64(sum_against(24, 48)).eval(), 0.002, num_classes=2, batch_size=64)
    with pytest.raises(NondeterministicModel, match="rest of the batch"):
        g.certify(torch.cat([torch.ones(4, 24), torch.zeros(4, 24)], dim=1), n_max=500, seed=1)


def test_a_tie_is_judged_by_the_scores_of_the_row_itself():
    classifier = BaseClassifier(lambda x: x.flatten(1), num_classes=2)
    classifier.usual = 1e9
    assert not single(classifier, Votes(2), torch.tensor([[1.0, 0.5]])).close
    assert single(classifier, Votes(2), torch.tensor([[1.0, 1.0]])).close
