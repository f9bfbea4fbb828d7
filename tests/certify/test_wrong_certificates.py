"""Roads that once led to a wrong certificate: each is closed, and stays closed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import certify
from certify.errors import EvidenceFails, InvalidModel, InvalidSetting, RunConflict
from certify.lipschitz import lipschitz_upper
from certify.sampling.first_linear import reduce_first_linear
from certify.transfer import count_flips, transfer

T = 0.4


def linear(sign: float = 1.0) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
        net[1].bias.copy_(torch.tensor([-2.4 * sign, 2.4 * sign]))
    return net


def half_space(at: float, slope: float = 20.0):
    """Logits +-slope on the two sides of x_1 = at."""

    def model(x):
        side = torch.where(x[:, 0] > at, slope, -slope)
        return torch.stack([-side, side], dim=1)

    return model


def smoothed(model, sigma=0.5, **options):
    settings = {"num_classes": 2, "noise": "gaussian", "bounds": None, "batch_size": 256} | options
    return certify.Smoothed(model, sigma, **settings)


class TestFirstLinearLayer:
    @pytest.mark.parametrize("where", ["model", "flatten", "linear"])
    def test_hooks_keep_a_network_as_it_is(self, where):
        net = linear()
        part = {"model": net, "flatten": net[0], "linear": net[1]}[where]
        part.register_forward_pre_hook(lambda _, args: (1 - args[0],))
        assert reduce_first_linear(net) is None

    def test_both_ways_certify_the_same_class(self):
        x = torch.full((1, 1, 2, 2), 0.2)
        for net in (linear(), linear(-1.0)):
            ways = (smoothed(net, sigma=0.25, reduce=r) for r in (None, False))
            a, b = (g.certify(x, n_max=2000)[0].label for g in ways)
            assert a == b


class TestWhichModel:
    def test_another_network_cannot_go_on_with_a_run(self, tmp_path):
        x = torch.full((2, 1, 2, 2), 0.2)
        certify.Smoothed(linear(), 0.25, num_classes=2).certify(x, n_max=500, store=tmp_path / "run")
        with pytest.raises(RunConflict):
            certify.Smoothed(linear(-1.0), 0.25, num_classes=2).certify(x, n_max=500, store=tmp_path / "run")

    def test_another_function_cannot_either(self, tmp_path):
        x = torch.zeros(2, 3)
        smoothed(half_space(T)).certify(x, n_max=500, store=tmp_path / "run")
        with pytest.raises(RunConflict):
            smoothed(half_space(-T)).certify(x, n_max=500, store=tmp_path / "run")

    def test_the_callers_settings_cannot_overwrite_the_runs(self):
        with pytest.raises(InvalidSetting):
            smoothed(half_space(T)).certify(torch.zeros(1, 2), n_max=500, settings={"alpha": 1e-9})


class TestTransfer:
    def run(self, g, x, **options):
        return g.certify(x, n_max=5000, seed=3, **options)

    def test_soft_certificates_say_nothing_about_flips(self):
        x = torch.zeros(1, 2)
        g = smoothed(half_space(T))
        with pytest.raises(InvalidSetting):
            transfer(self.run(g, x, scores="soft"), g, smoothed(half_space(T, 0.05)), x, seed=1)

    def test_the_run_must_be_the_certified_classifiers(self):
        x = torch.zeros(1, 2)
        g = smoothed(half_space(T))
        run = self.run(g, x)
        wide = smoothed(half_space(T), sigma=16.0)
        with pytest.raises(InvalidSetting):
            transfer(run, wide, smoothed(half_space(T), sigma=16.0), x, seed=1)
        with pytest.raises(InvalidSetting):
            transfer(run, smoothed(half_space(-T)), g, x, seed=1)

    def test_the_inputs_must_be_the_runs(self):
        x = torch.zeros(1, 2)
        g = smoothed(half_space(T))
        with pytest.raises(EvidenceFails):
            transfer(self.run(g, x), g, g, x + 1, seed=1)

    def test_a_model_that_writes_into_its_input_does_not_hide_flips(self):
        def net(inplace):
            torch.manual_seed(1)
            return nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()

        other = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        flips = [
            count_flips(smoothed(net(inplace)), smoothed(other), torch.zeros(3), 500, seed=2, id=0)
            for inplace in (True, False)
        ]
        assert flips[0] == flips[1]

    def test_a_transferred_run_has_no_simultaneous_radii(self):
        x = torch.zeros(2, 2)
        g = smoothed(half_space(T))
        carried = transfer(self.run(g, x), g, g, x, samples=500, seed=1)
        with pytest.raises(InvalidSetting):
            carried.simultaneous()


class TestLipschitz:
    def test_a_sequential_with_its_own_forward_has_no_bound(self):
        class Steep(nn.Sequential):
            def forward(self, x):
                return 10 * x + super().forward(x)

        with pytest.raises(InvalidModel):
            lipschitz_upper(Steep(nn.Identity()).eval(), (2,))

    def test_nor_has_a_container_with_hooks(self):
        net = nn.Sequential(nn.Identity()).eval()
        net.register_forward_hook(lambda _, args, out: 10 * out)
        with pytest.raises(InvalidModel):
            lipschitz_upper(net, (2,))


class TestContradictions:
    def outcomes(self, **fields):
        from attacks import AttackOutcome, AttackStatus

        base = AttackOutcome(
            index=0, target=0, smoothed=True, norm="inf", eps=None, preset="smoothed", clean_correct=True,
            status=AttackStatus.BROKEN, distance=0.1, distance_l2=0.6, distance_linf=0.1, prediction=1,
        )  # fmt: skip
        return [replace(base, **fields)]

    def run(self):
        return smoothed(half_space(T)).certify(torch.zeros(1, 2), n_max=5000, seed=3)

    def test_distances_are_compared_in_the_runs_norm(self):
        run = self.run()
        assert 0.1 < run[0].radius < 0.6
        assert run.contradictions(self.outcomes()) == []
        assert len(run.contradictions(self.outcomes(distance_l2=0.1))) == 1

    def test_another_class_at_the_input_itself_counts(self):
        from attacks import AttackStatus

        nowhere = {"distance": None, "distance_l2": None, "distance_linf": None, "prediction": None}
        at_input = self.outcomes(status=AttackStatus.CLEAN_ERROR, details={"label": 1}, **nowhere)
        assert len(self.run().contradictions(at_input)) == 1
        same = self.outcomes(status=AttackStatus.CLEAN_ERROR, details={"label": 0}, **nowhere)
        assert self.run().contradictions(same) == []

    def test_outcomes_of_other_inputs_are_refused(self):
        with pytest.raises(InvalidSetting):
            self.run().contradictions(self.outcomes(index=77))


def test_a_value_between_grid_points_is_off_the_grid_also_far_out():
    g = certify.Smoothed(half_space(T), 0.5, num_classes=2, grid=2.0**-10, bounds=(-1000.0, 1000.0))
    with pytest.raises(certify.errors.InvalidInput):
        g.certify(torch.tensor([[600.00035, 0.0]]), n_max=200)


class TestAModelThatChanged:
    """What a smoothed classifier derives from its model speaks about the model as it was."""

    @pytest.mark.parametrize("ask", [lambda g, x: g.certify(x, n_max=500), lambda g, x: g.predict(x, seed=1)])
    @pytest.mark.parametrize("reduce", [None, False])
    def test_new_weights_need_a_new_smoothed_classifier(self, ask, reduce):
        net, x = linear(), torch.full((1, 1, 2, 2), 0.2)
        g = smoothed(net, reduce=reduce)
        ask(g, x)
        net[1].weight.data.neg_()  # no version counter moves
        with pytest.raises(InvalidModel, match="changed since"):
            ask(g, x)

    def test_back_in_training_mode(self):
        net, x = nn.Sequential(linear(), nn.Dropout(0.5)).eval(), torch.full((1, 1, 2, 2), 0.2)
        g = smoothed(net)
        net.train()
        with pytest.raises(InvalidModel, match="train"):
            g.certify(x, n_max=500)
