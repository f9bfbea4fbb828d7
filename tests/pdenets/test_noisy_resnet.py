"""Noise inside a network: the block bounds, the certificate, and the shortcut that is unsound."""

import math

import pytest
import torch
from scipy import stats

from certify.errors import InvalidSetting
from certify.inside.effective_sigma import effective_sigma
from pdenets.noisy_resnet import noisy_resnet


def gen(seed):
    return torch.Generator().manual_seed(seed)


def build(seed=0, **arguments):
    torch.manual_seed(seed)
    defaults = {"num_classes": 3, "input_shape": (5,), "sigma": 0.3, "inner": 0.2, "blocks": 3}
    return noisy_resnet(**(defaults | arguments)).eval()


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8)])
@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_blocks_stay_within_their_certified_bounds(shape, decay):
    net = build(input_shape=shape, decay=decay).double()
    for parameter in net.steps.parameters():
        parameter.data *= 3.0  # well beyond the cap
    for _ in range(20):  # lets the power iteration of the convolution settle
        net.train()(torch.rand(2, *shape).double())
    net.eval()
    for block in net.steps:
        bound = block.lipschitz_upper()
        x = torch.randn(400, *shape, generator=gen(1), dtype=torch.float64)
        y = x + 0.1 * torch.randn(x.shape, generator=gen(2), dtype=torch.float64)
        with torch.no_grad():
            moved = (block(x) - block(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
        assert float(moved.max()) <= bound
        assert bound <= (1 - block.step * decay) * 1.3  # nearly all of the contraction is certified


def test_adjoint_of_the_convolution_makes_the_jacobian_symmetric():
    block = build(input_shape=(1, 6, 6), blocks=1).double().steps[0]
    jacobian = torch.autograd.functional.jacobian(block, torch.randn(1, 1, 6, 6).double())
    matrix = jacobian.reshape(36, 36)
    assert torch.allclose(matrix, matrix.T, atol=1e-12)


def test_stages_list_every_injection_and_contraction_raises_the_effective_sigma():
    net = build(decay=0.4)
    stages = net.noise_stages()
    assert [s.scale for s in stages] == [0.3, 0.2, 0.2, 0.2]
    assert stages[0].lipschitz == 1.0
    assert sum(s.size for s in stages) == net.noise_size == 20
    s_eff = effective_sigma([s.scale for s in stages], [s.lipschitz for s in stages])
    assert s_eff > math.sqrt(0.3**2 + 3 * 0.2**2)


def test_noise_enters_where_the_stages_say():
    net = build(blocks=1, inner=0.5).double()
    x, normals = torch.randn(4, 5).double(), torch.randn(4, 10).double()
    by_hand = net.head(net.steps[0](x + 0.3 * normals[:, :5]) + 0.5 * normals[:, 5:])
    assert torch.equal(net.noisy_logits(x, normals), by_hand)
    assert torch.equal(net(x), net.noisy_logits(x, torch.zeros_like(normals)))


def test_training_mode_draws_noise_and_gradients_reach_the_blocks():
    net = build().train()
    x = torch.randn(8, 5)
    assert not torch.equal(net(x), net(x))
    net(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.steps.parameters())


@pytest.mark.parametrize(
    "arguments",
    [{"sigma": 0.0, "inner": 0.0}, {"sigma": -1.0}, {"decay": 2.0}, {"step": 0.0}, {"input_shape": (2, 3)}],
)
def test_impossible_networks_are_refused(arguments):
    with pytest.raises(InvalidSetting):
        build(**arguments)


# -- the radius against the distance at which the smoothed class really changes ---------------


def random_linear_case(seed):
    """Random linear noisy net and half-space head: radius by s_eff, by the naive root, true distance."""
    g = gen(seed)
    d = int(torch.randint(1, 9, (1,), generator=g))
    depth = int(torch.randint(1, 5, (1,), generator=g))
    scales = (0.05 + torch.rand(depth, generator=g)).tolist()
    expanding = seed % 2 == 0
    total, covariance, bounds = torch.eye(d).double(), torch.zeros(d, d).double(), []
    for s in scales:
        a = torch.randn(d, d, generator=g).double()
        a = a / torch.linalg.matrix_norm(a, 2) * (1.5 if expanding else 0.6)
        bounds.append(float(torch.linalg.matrix_norm(a, 2)) * (1 + 1e-14))
        covariance = a @ covariance @ a.T + s**2 * torch.eye(d).double()
        total = a @ total
    w, x = torch.randn(d, generator=g).double(), torch.randn(d, generator=g).double()
    pulled = total.T @ w
    margin = float((pulled @ x).abs())
    quantile = margin / math.sqrt(float(w @ covariance @ w))
    distance = margin / float(pulled.norm())
    return (
        effective_sigma(scales, bounds) * quantile,
        math.sqrt(sum(s**2 for s in scales)) * quantile,
        distance,
    )


def test_radius_never_exceeds_the_distance_on_100_linear_networks_and_the_naive_one_does():
    cases = [random_linear_case(seed) for seed in range(100)]
    assert all(radius <= distance * (1 + 1e-9) for radius, _, distance in cases)
    assert any(naive > distance for _, naive, distance in cases)


def test_one_dimensional_expanding_networks_refute_the_naive_root():
    wrong = 0
    for seed in range(60):
        g = gen(seed)
        scales = (0.1 + torch.rand(3, generator=g)).tolist()
        bounds = (1.05 + torch.rand(3, generator=g)).tolist()
        naive = math.sqrt(sum(s**2 for s in scales))
        wrong += naive > effective_sigma(scales, bounds) * (1 + 1e-6)  # one dimension: s_eff is the truth
    assert wrong >= 57


class _Random:
    """A random nonlinear noisy network with a two-class head, in d <= 8, contracting or expanding."""

    def __init__(self, seed):
        g = gen(seed)
        self.d = int(torch.randint(1, 9, (1,), generator=g))
        self.depth = 1 + seed % 3
        slope, size = (0.5, 0.3) if seed % 2 else (1.2, 0.8)
        self.slope, self.size = slope, size
        self.w = [torch.randn(self.d, self.d, generator=g).double() for _ in range(self.depth)]
        self.w = [w / torch.linalg.matrix_norm(w, 2) for w in self.w]
        self.scales = (0.2 + 0.5 * torch.rand(self.depth, generator=g)).tolist()
        self.bounds = [(slope + size) * (1 + 1e-12)] * self.depth
        self.head = torch.randn(self.d, generator=g).double()
        self.x = torch.randn(self.d, generator=g).double()

    def margin(self, x, noise):
        for k in range(self.depth):
            x = self.slope * x + self.size * torch.tanh(x @ self.w[k].T) + self.scales[k] * noise[k]
        return x @ self.head

    def attack(self, noise):
        """The nearest class change along the pulled-back normal and along random directions."""
        sign = 1.0 if float((self.margin(self.x, noise) > 0).double().mean()) > 0.5 else -1.0
        x = self.x.clone().requires_grad_()
        (normal,) = torch.autograd.grad(torch.tanh(self.margin(x, noise)).mean(), x)
        random = torch.randn(8, self.d, generator=gen(7)).double()
        best = math.inf
        for direction in [-sign * normal, *random]:
            unit = direction / direction.norm()
            low, high = 0.0, 6.0
            if self.share(self.x + high * unit, noise, sign) >= 0.5:
                continue
            for _ in range(30):
                middle = (low + high) / 2
                low, high = (
                    (middle, high)
                    if self.share(self.x + middle * unit, noise, sign) >= 0.5
                    else (low, middle)
                )
            best = min(best, high)
        return sign, best

    def share(self, x, noise, sign):
        return float((sign * self.margin(x, noise) > 0).double().mean())


def test_radius_never_exceeds_the_attack_on_100_nonlinear_networks():
    n, attacked, naive_refuted = 2000, 0, 0
    for seed in range(100):
        net = _Random(seed)
        noise = [torch.randn(n, net.d, generator=gen(1000 * seed + k)).double() for k in range(net.depth)]
        sign, distance = net.attack(noise)
        votes = round(n * net.share(net.x, noise, sign))
        # A five-sigma lower bound on p and on where the attack crosses one half: no false alarm.
        p = votes / n - 5 * math.sqrt(0.25 / n)
        if p <= 0.5 or math.isinf(distance):
            continue
        attacked += 1
        assert effective_sigma(net.scales, net.bounds) * stats.norm.ppf(p) <= distance
        naive_refuted += math.hypot(*net.scales) * stats.norm.ppf(p) > distance
    assert attacked >= 40
    assert naive_refuted >= 5


def test_trained_network_is_certified_end_to_end_and_survives_an_attack(tmp_path):
    import certify
    from certify.data import load
    from certify.inside.internal_noise import SmoothedInside
    from pdenets.training import train

    data, test = load("moons", split="train"), load("moons", split="test", limit=8)
    path = tmp_path / "noisy.pt"
    arguments = {"sigma": 0.2, "inner": 0.2, "blocks": 2, "decay": 0.3}
    train(
        data, arch="noisy-resnet", out=path, arguments=arguments, sigma=0.0,
        regulariser="none", epochs=15, seed=0,
    )  # fmt: skip
    model = certify.load(path)
    g = SmoothedInside(model)
    assert g.sigma > math.sqrt(0.2**2 + 2 * 0.2**2)  # the contraction counts
    run = g.certify(test.x, test.y, mode="fixed", n=2000, seed=1)
    assert sum(bool(r.correct) for r in run) >= 5
    # Walk out along many directions; a confirmed change of class must lie beyond the radius.
    angle = torch.linspace(0, 2 * math.pi, 9)[:-1]
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    for record, x in zip(run, test.x, strict=True):
        if not record.certified:
            continue
        inside = x + 0.98 * record.radius * ring
        for found in g.predict(inside.clamp(*test.bounds), n=1000, alpha=1e-4, seed=3):
            assert found.label in (None, record.label)
