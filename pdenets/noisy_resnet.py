"""A residual network with Gaussian noise after every block, built to be certified.

Its forward pass is an Euler-Maruyama scheme for dX = v(X) dt + sqrt(2) sigma dW, the particle form
of the convection-diffusion equation. Each block is a gradient step

    x -> (1 - step decay) x - step W^T phi(W x + b),     phi = ReLU,

whose Jacobian is symmetric with eigenvalues in [1 - step (decay + |W|^2), 1 - step decay]. |W| is
held near sqrt(1.5 (1 - step decay) / step) at most, below the value (2 for 1.5) at which a block would
begin to expand: it contracts by 1 - step decay, and noise injected after a contraction counts
for more at the input. What follows the last injection (the head) needs no bound at all. The certified
radius uses the effective sigma of ``certify.inside.effective_sigma``.

References: Wang et al., "ResNets ensemble via the Feynman-Kac formalism", NeurIPS 2019 (noisy ResNets);
Meunier et al., ICML 2022 (gradient-step layers); arXiv 2307.12333 (the equation).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import InvalidSetting
from certify.inside.effective_sigma import NoiseStage
from certify.lipschitz import conv2d_upper, dense_upper, gradient_step_upper
from pdenets.baselines import cnn, mlp


def noisy_resnet(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    sigma: float = 0.25,
    inner: float = 0.1,
    blocks: int = 2,
    width: int | None = None,
    step: float = 0.5,
    decay: float = 0.2,
) -> nn.Module:
    """Noise of standard deviation ``sigma`` on the input and ``inner`` after each of ``blocks`` blocks.

    ``width`` is the number of rows of W (vectors, default 64) or its channels (images, default 16).
    Raises InvalidSetting for noise that is nowhere positive, for step * decay outside [0, 1), or for
    inputs that are neither vectors (d,) nor images (channels, height, width).
    """
    if len(input_shape) not in (1, 3):
        raise InvalidSetting(
            f"noisy-resnet has no form for inputs of shape {tuple(input_shape)}",
            why="it is defined for vectors (d,) and for images (channels, height, width)",
            remedy="reshape the data, or choose another architecture",
        )
    if min(sigma, inner) < 0 or not 0 < sigma + inner < math.inf or blocks < 0:
        raise InvalidSetting(
            f"sigma={sigma}, inner={inner}, blocks={blocks} leave the network without valid noise",
            why="the standard deviations must be >= 0 and not both 0, the number of blocks >= 0",
            remedy="use for example sigma=0.25, inner=0.1, blocks=2",
        )
    if not (step > 0 and decay >= 0 and step * decay < 1):
        raise InvalidSetting(
            f"step={step}, decay={decay} make no gradient step",
            why="a block keeps the share 1 - step * decay of its input, which must be positive",
            remedy="use for example step=0.5, decay=0.2",
        )
    if len(input_shape) == 1:
        width = width or 64
        steps = [_DenseStep(input_shape[0], width, step, decay) for _ in range(blocks)]
        head = mlp(num_classes=num_classes, input_shape=input_shape, width=64)
    else:
        width = width or 16
        steps = [_ConvStep(input_shape, width, step, decay) for _ in range(blocks)]
        head = cnn(num_classes=num_classes, input_shape=input_shape)
    return NoisyResNet(steps, head, input_shape, sigma=sigma, inner=inner)


class NoisyResNet(nn.Module):
    """Called in training mode it draws its noise from torch's generator, as dropout does.

    In evaluation mode ``forward`` leaves the noise out (a plain network), and ``noisy_logits`` takes
    it as an argument.
    """

    def __init__(
        self,
        steps: Sequence[nn.Module],
        head: nn.Module,
        input_shape: tuple[int, ...],
        *,
        sigma: float,
        inner: float,
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.head = head
        self.input_shape = tuple(input_shape)
        self.sigma = float(sigma)
        self.inner = float(inner)

    def forward(self, x: Tensor) -> Tensor:
        size = self.noise_size if self.training else 0
        return self.noisy_logits(x, torch.randn(len(x), size, device=x.device, dtype=x.dtype))

    @property
    def noise_size(self) -> int:
        """Standard normals per pass."""
        injections = (self.sigma > 0) + len(self.steps) * (self.inner > 0)
        return injections * math.prod(self.input_shape)

    def noisy_logits(self, x: Tensor, normals: Tensor) -> Tensor:
        """Logits for standard normals (batch, noise_size); with no columns at all, without noise."""
        quiet = normals.shape[1] == 0
        left = iter(() if quiet else normals.split(math.prod(self.input_shape), dim=1))
        if self.sigma > 0 and not quiet:
            x = x + self.sigma * next(left).reshape(x.shape)
        for block in self.steps:
            x = block(x)
            if self.inner > 0 and not quiet:
                x = x + self.inner * next(left).reshape(x.shape)
        return self.head(x)

    def noise_stages(self) -> tuple[NoiseStage, ...]:
        """The injections with certified bounds of the blocks between them (see ``certify.lipschitz``)."""
        size = math.prod(self.input_shape)
        stages = [NoiseStage(self.sigma, 1.0, size)] if self.sigma > 0 else []
        if self.inner > 0:
            stages += [NoiseStage(self.inner, _bound(block), size) for block in self.steps]
        return tuple(stages)


def _bound(block: nn.Module) -> float:
    assert isinstance(block, _GradientStep)
    return block.lipschitz_upper()


class _GradientStep(nn.Module, ABC):
    """What the dense and the convolutional block share: the step, the decay, the cap on |W|."""

    def __init__(self, step: float, decay: float) -> None:
        super().__init__()
        self.step = step
        self.decay = decay
        self.cap = math.sqrt(1.5 * (1 - step * decay) / step)

    def lipschitz_upper(self) -> float:
        with torch.no_grad():
            return gradient_step_upper(self.operator_upper(), self.step, self.decay)

    @abstractmethod
    def operator_upper(self) -> float:
        """Certified upper bound on |W| for the weights in use."""


class _DenseStep(_GradientStep):
    raw: Tensor
    bias: Tensor

    def __init__(self, dim: int, width: int, step: float, decay: float) -> None:
        super().__init__(step, decay)
        self.raw = nn.Parameter(torch.randn(width, dim) * math.sqrt(1.0 / width))
        self.bias = nn.Parameter(torch.zeros(width).uniform_(-1.0, 1.0))

    def weight(self) -> Tensor:
        """W in use: the parameter, scaled down to the cap where it exceeds it."""
        norm = torch.linalg.matrix_norm(self.raw, 2)
        return self.raw * (self.cap / norm.clamp_min(self.cap))

    def operator_upper(self) -> float:
        return dense_upper(self.weight())

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight()
        return (1 - self.step * self.decay) * x - self.step * F.relu(F.linear(x, w, self.bias)) @ w


class _ConvStep(_GradientStep):
    """W is a zero-padded 5x5 convolution; its adjoint is the transposed convolution."""

    raw: Tensor
    bias: Tensor
    direction: Tensor

    def __init__(self, input_shape: tuple[int, ...], width: int, step: float, decay: float) -> None:
        super().__init__(step, decay)
        channels, self.height, self.breadth = input_shape
        self.raw = nn.Parameter(torch.randn(width, channels, 5, 5) * math.sqrt(1.0 / (25 * width)))
        self.bias = nn.Parameter(torch.zeros(width).uniform_(-0.5, 0.5))
        self.register_buffer("direction", torch.randn(1, *input_shape))

    def weight(self) -> Tensor:
        """The kernel in use, scaled down to the cap by the power iteration's estimate of |W|.

        The estimate only steers training; the certificate bounds the kernel that comes out.
        """
        if self.training:
            with torch.no_grad():
                for _ in range(3):
                    image = F.conv2d(self.direction, self.raw, padding=2)
                    back = F.conv_transpose2d(image, self.raw, padding=2)
                    self.direction.copy_(back / torch.linalg.vector_norm(back).clamp_min(1e-12))
        length = torch.linalg.vector_norm(self.direction)
        norm = torch.linalg.vector_norm(F.conv2d(self.direction, self.raw, padding=2)) / length
        return self.raw * (self.cap / norm.clamp_min(self.cap))

    def operator_upper(self) -> float:
        return conv2d_upper(self.weight(), (self.height, self.breadth))

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight()
        hidden = F.relu(F.conv2d(x, w, self.bias, padding=2))
        return (1 - self.step * self.decay) * x - self.step * F.conv_transpose2d(hidden, w, padding=2)
