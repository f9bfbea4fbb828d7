"""Networks put together at random, with all that people do to modules, and an attack on their slope."""

import random

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize


class Doubling(nn.ReLU):
    """A class of one's own on top of torch's, with another forward."""

    def forward(self, x):
        return 2 * x


class Twice(nn.Module):
    """A parametrization of one's own."""

    def forward(self, x):
        return 2 * x


def activation(r: random.Random) -> nn.Module:
    a = r.choice([-5.0, -1.5, -0.3, 0.0, 0.5, 1.0, 3.0])
    if r.random() < 0.8:
        return r.choice(
            [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(alpha=a), nn.LeakyReLU(a), nn.PReLU(init=a),
             nn.Softmax(dim=r.choice([1, -1])), nn.Sigmoid(), nn.Dropout(0.9), nn.AlphaDropout(0.9)]
        )  # fmt: skip
    return r.choice(
        [
            nn.ReLU6(), nn.GELU("tanh"), nn.Identity(), nn.Hardtanh(-abs(a) - 0.1, 2.0), nn.Dropout1d(0.5),
            nn.Softplus(beta=abs(a) + 0.1, threshold=r.choice([20, 0.5])), nn.Softmax(dim=0),
            nn.CELU(alpha=a or 1),
            nn.SELU(), nn.Mish(), nn.Hardswish(), nn.Hardshrink(), nn.Threshold(0.5, a), nn.Softsign(),
            nn.LogSoftmax(dim=1), nn.GLU(dim=-1), nn.RReLU(0.1, 4.0), Doubling(),
            nn.LayerNorm(4, elementwise_affine=False),
        ]
    )  # fmt: skip


def norm(kind: type[nn.Module], width: int, r: random.Random) -> nn.Module:
    layer = kind(width, eps=r.choice([1e-5, 1e-2]), affine=r.random() < 0.7)
    with torch.no_grad():
        layer.running_var.uniform_(0.05, 2.0)
        if r.random() < 0.05:
            layer.running_var[0] = r.choice([-0.5, 0.0, float("nan")])
        if layer.affine:
            layer.weight.uniform_(-2, 2)
    return layer


def dense(r: random.Random, depth: int = 0) -> nn.Sequential:
    """Layers (4,) -> (4,)."""
    layers = []
    for _ in range(r.randint(1, 4)):
        kind = r.random()
        if kind < 0.45:
            layer = nn.Linear(4, 4, bias=r.random() < 0.5)
            layer.weight.data.mul_(r.choice([0.5, 1.0, 4.0]))
            layers.append(layer)
        elif kind < 0.6 and depth < 2:
            layers.append(dense(r, depth + 1))
        elif kind < 0.7:
            layers.append(norm(nn.BatchNorm1d, 4, r))
        else:
            layers.append(activation(r))
    if layers and r.random() < 0.4:
        layers.append(r.choice(layers))
    return nn.Sequential(*layers)


def image(r: random.Random) -> nn.Sequential:
    """Layers (2, 6, 6) -> anything."""
    layers = []
    for _ in range(r.randint(1, 3)):
        kind = r.random()
        if kind < 0.4:
            mode = r.choice(["zeros", "zeros", "circular", "reflect", "replicate"])
            k, d = r.choice([1, 2, 3]), r.choice([1, 1, 2])
            padding = r.choice([0, 1, 2, "same"])
            stride = 1 if padding == "same" else r.choice([1, 1, 2])
            groups = r.choice([1, 2])
            layers.append(nn.Conv2d(2, 2, k, stride, padding, d, groups, padding_mode=mode))
        elif kind < 0.55:
            k = r.choice([2, 3])
            layers.append(
                r.choice(
                    [
                        nn.MaxPool2d(k, r.choice([1, 2, 3]), r.choice([0, 1]), ceil_mode=r.random() < 0.5),
                        nn.AvgPool2d(k, r.choice([1, 2, 3]), r.choice([0, 1]), ceil_mode=r.random() < 0.3,
                                     count_include_pad=r.random() < 0.5),
                        nn.AvgPool2d(2, divisor_override=1), nn.MaxPool2d(2, 1, dilation=2),
                        nn.LPPool2d(2, 2),
                        nn.AdaptiveAvgPool2d(r.choice([1, 3, 5, 9])), nn.AdaptiveMaxPool2d(3),
                        nn.Upsample(scale_factor=2), nn.Upsample(size=(3, 3), mode="bilinear"),
                    ]
                )
            )  # fmt: skip
        elif kind < 0.7:
            layers.append(norm(nn.BatchNorm2d, 2, r))
        else:
            layers.append(activation(r))
    if r.random() < 0.3:
        layers.append(r.choice(layers))
    if r.random() < 0.6:
        layers.append(nn.Flatten(r.choice([0, 1, 1, 1, 2])))
    return nn.Sequential(*layers)


def disturb(net: nn.Module, r: random.Random) -> None:
    """What is done to networks after they were built."""
    modules = list(net.modules())
    m = r.choice(modules)
    what = r.choice(
        ["training", "hook", "pre-hook", "forward", "weight_norm", "spectral_norm", "own parametrization",
         "nan", "huge", "tiny", *["nothing"] * 12]
    )  # fmt: skip
    linear = [k for k in modules if isinstance(k, nn.Linear | nn.Conv2d)]
    if what == "training":
        m.train()
    elif what == "hook":
        m.register_forward_hook(lambda module, args, out: 3 * out)
    elif what == "pre-hook":
        m.register_forward_pre_hook(lambda module, args: (3 * args[0],))
    elif what == "forward":
        old = m.forward
        m.forward = lambda x: 3 * old(x)
    elif linear:
        part = r.choice(linear)
        if what == "weight_norm":
            parametrizations.weight_norm(part)
        elif what == "spectral_norm":
            parametrizations.spectral_norm(part)
        elif what == "own parametrization":
            parametrize.register_parametrization(part, "weight", Twice())
        elif what == "nan":
            part.weight.data.view(-1)[0] = float("nan")
        elif what == "huge":
            part.weight.data.mul_(1e200)
        elif what == "tiny":
            part.weight.data.mul_(1e-200)
    for child in net.modules():
        if parametrize.is_parametrized(child):
            child.parametrizations.eval()


def assembled(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A network in evaluation mode (mostly), float64, and the shape of one input."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    net, shape = (dense(r), (4,)) if r.random() < 0.5 else (image(r), (2, 6, 6))
    net = net.double().eval()
    disturb(net, r)
    return net, shape


def steepest(net, shape, seed: int, *, steps: int = 12, rows: int = 12) -> float:
    """The largest |f(x) - f(y)| / |x - y| that gradient ascent on pairs finds: a lower bound on the slope."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-2, 1, rows, dtype=torch.float64).view(-1, *[1] * len(shape))
    x = scale * torch.randn(rows, *shape, generator=g, dtype=torch.float64)
    y = x + 0.1 * scale * torch.randn(rows, *shape, generator=g, dtype=torch.float64)
    best = 0.0
    for _ in range(steps):
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        out = net(x)
        far = torch.linalg.vector_norm((out - net(y)).reshape(rows, -1), dim=1)
        near = torch.linalg.vector_norm((x - y).reshape(rows, -1), dim=1)
        # A difference of nearly equal outputs carries rounding: only what is clear of it counts.
        ratio = (far - 1e-13 * float(out.detach().abs().max())) / near
        best = max(best, float(ratio.detach().nan_to_num(0, 0, 0).max()))
        if not ratio.requires_grad:
            break
        slopes = torch.autograd.grad(ratio.sum(), (x, y), allow_unused=True)
        x, y = (z if s is None else z + 0.3 * scale * unit(s) for z, s in zip((x, y), slopes, strict=True))
    return best


def unit(v):
    v = v.nan_to_num(0, 0, 0)
    return v / torch.linalg.vector_norm(v.flatten(1), dim=1).clamp_min(1e-300).view(-1, *[1] * (v.ndim - 1))
