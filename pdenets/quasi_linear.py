"""Convolutional networks from quasi-linear hyperbolic systems, and their continuous symmetry.

A block adds to u (n channels) a product of two branches: u itself mixed by 1x1
convolutions C (and D), and its derivatives by depthwise 3x3 kernels, mixed by A. The
product is the nonlinearity; activations are optional and few.

    equation   what is added to u                    in the paper
    3          A [ (C u) * d u ]                     Eq. (3)
    4          (C u) * A d u                         Eq. (4), with C = D as its parameter count implies
    5          sum over the kernels of (C u) * d u   Eq. (5)
    6          A d [ u * C u ]                       Eq. (6)
    7          A d [ u * (C u, D u) ]                Eq. (7)
    factored   A d [ (C u) * (D u) ]                 the form with an exact symmetry

In the factored form a change of channels T u is absorbed by the weights (T A, C T^-1,
D T^-1) for every invertible T as long as no activation intervenes, for orthogonal T
with a ball activation, and for permutations with a coordinate-wise one.

Reference: Liu, Shao and Bai, A Novel Convolutional Neural Network Architecture with a
Continuous Symmetry (2023), sections 3 to 5.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from certify.errors import InvalidSetting
from pdenets.balls import Hardball, Softball

EQUATIONS = ("3", "4", "5", "6", "7", "factored")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "hardtanh": nn.Hardtanh,
    "hardball": Hardball,
    "softball": Softball,
}
#: Where the activation stands: nowhere, after every block, or once per stage.
PLACEMENTS = ("none", "all", "ds")


def quasi_linear(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    equation: int | str = "3",
    kernels: int = 4,
    shared: bool = True,
    activation: str = "softball",
    placement: str = "ds",
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
) -> nn.Module:
    """The network for images: ResNet-50's stages from 64 pixels on, else two stages of 16 and 32.

    ``kernels`` is the number of derivatives per channel, ``shared`` uses the same 3x3
    kernels for all channels of a block. At 100 classes and three channels Eq. (3) has
    8,608,868 parameters.
    """
    large = len(input_shape) == 3 and min(input_shape[1:]) >= 64
    widths = tuple(widths or ((64, 128, 256, 512) if large else (16, 32)))
    blocks = tuple(blocks or ((3, 4, 6, 3) if large else (2, 2)))
    known = str(equation) in EQUATIONS and activation in ACTIVATIONS and placement in PLACEMENTS
    if len(input_shape) != 3 or len(widths) != len(blocks) or kernels < 1 or not known:
        raise InvalidSetting(
            f"quasi-linear has no form for equation {equation!r}, activation {activation!r} at "
            f"{placement!r}, inputs of shape {tuple(input_shape)}",
            why=f"equations: {', '.join(EQUATIONS)}; activations: {', '.join(ACTIVATIONS)}; placements: "
            f"{', '.join(PLACEMENTS)}; inputs are images; widths and blocks have one entry per stage",
            remedy="leave the arguments out to use equation 3 with softball at downsampling",
        )
    return QuasiLinear(
        num_classes, input_shape[0], equation=str(equation), kernels=kernels, shared=shared,
        activation=ACTIVATIONS[activation], placement=placement, widths=widths, blocks=blocks, large=large,
    )  # fmt: skip


class QuasiLinear(nn.Module):
    """Stem, stages, global average, linear head. See ``quasi_linear``.

    The stem pools by averages where ResNet-50 takes maxima: a maximum acts on single
    channels and would break the first stage's symmetry.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        equation: str,
        kernels: int,
        shared: bool,
        activation: Callable[[], nn.Module],
        placement: str,
        widths: Sequence[int],
        blocks: Sequence[int],
        large: bool,
    ) -> None:
        super().__init__()
        size, stride = (7, 2) if large else (3, 1)
        self.equation = equation
        self.stem = _ConvNorm(channels, widths[0], size, stride=stride)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False) if large else nn.Identity()
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.ModuleList()
            for position in range(count):
                down = index > 0 and position == 0
                active = placement == "all" or (placement == "ds" and down)
                act = activation() if active else nn.Identity()
                stage.append(
                    QuasiLinearBlock(
                        inputs, width, stride=2 if down else 1, equation=equation, kernels=kernels,
                        shared=shared, activation=act,
                    )
                )  # fmt: skip
                inputs = width
            self.stages.append(stage)
        self.last = activation() if placement == "ds" else nn.Identity()
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        u = self.pool(self.stem(x))
        for stage in self.stages:
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                u = block(u)
        return self.head(self.last(u).mean(dim=(2, 3)))

    def folded(self) -> QuasiLinear:
        """A copy in eval mode in which every batch norm of u is folded into the convolution before it.

        It computes the same function. Batch norms inside a block, on the products'
        channels, are not touched by the symmetry and stay.
        """
        model = copy.deepcopy(self).eval()
        for module in model.modules():
            if isinstance(module, _ConvNorm):
                module.fold()
        return model

    def transform(self, *matrices: Tensor | None) -> QuasiLinear:
        """A folded copy whose channels in stage i are changed to T_i u; None leaves a stage as it is.

        The outputs stay the same exactly when T_i belongs to the symmetry group of the
        activation. Raises InvalidSetting for other forms than "factored", or when the
        number or shapes of the matrices do not fit.
        """
        widths = [stage[-1].out.conv.out_channels for stage in self.stages]  # pyright: ignore
        shapes = [None if t is None else tuple(t.shape) for t in matrices]
        fits = [s in (None, (n, n)) for s, n in zip(shapes, widths, strict=False)]
        if self.equation != "factored" or len(matrices) != len(widths) or not all(fits):
            raise InvalidSetting(
                f"equation {self.equation!r} cannot be transformed by matrices of shapes {shapes}",
                why=f"only the factored form has the symmetry; its stages have {widths} channels",
                remedy="build the network with equation='factored' and give one square matrix per stage",
            )
        model = self.folded()
        previous: Tensor | None = None
        with torch.no_grad():
            for index, (stage, t) in enumerate(zip(model.stages, matrices, strict=True)):
                if index == 0:
                    model.stem.write(t)
                for position, block in enumerate(stage):  # pyright: ignore
                    block.read(previous if position == 0 and index > 0 else t)
                    block.write(t)
                previous = t
            _read(model.head, previous)
        return model


class QuasiLinearBlock(nn.Module):
    """One time step of the system: u + product of its branches, stride 2 where channels double."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        equation: str,
        kernels: int,
        shared: bool,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        wide = kernels * inputs
        mixed = {"4": outputs, "6": inputs}.get(equation, wide)
        self.equation, self.stride, self.kernels, self.outputs = equation, stride, kernels, outputs
        conserved = equation in ("6", "7", "factored")
        # In the conservation laws the product comes first, at full resolution.
        self.mix = nn.Conv2d(inputs, mixed, 1, stride=1 if conserved else stride, bias=False)
        self.mix2 = nn.Conv2d(inputs, wide, 1, bias=False) if equation == "factored" else None
        channels = wide if equation in ("7", "factored") else inputs
        self.derivative = _Derivative(channels, wide, kernels=kernels, shared=shared, stride=stride)
        self.norm = nn.BatchNorm2d(wide)
        self.out = nn.Identity() if equation == "5" else _ConvNorm(wide, outputs, 1)
        if equation == "4":
            # The product follows A, so the batch norm of the sum stands behind it.
            self.out = nn.Conv2d(wide, outputs, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else _ConvNorm(inputs, outputs, 1, stride=stride)
        self.activation = activation

    def forward(self, u: Tensor) -> Tensor:
        return self.activation(self.skip(u) + self._rate(u))

    def _rate(self, u: Tensor) -> Tensor:
        mixed = self.mix(u)
        if self.equation in ("6", "7", "factored"):
            if self.mix2 is not None:
                product = mixed * self.mix2(u)
            elif self.equation == "6":
                product = mixed * u
            else:
                product = mixed * u.repeat_interleave(self.kernels, dim=1)
            return self.out(self.norm(self.derivative(product)))
        slopes = self.norm(self.derivative(u))
        if self.equation == "4":
            return self.norm2(mixed * self.out(slopes))
        if self.equation == "5":
            return (mixed * slopes).unflatten(1, (self.outputs, -1)).sum(2)
        return self.out(mixed * slopes)

    def read(self, t: Tensor | None) -> None:
        """Expect T u as input instead of u."""
        for layer in (self.mix, self.mix2, self.skip):
            if layer is not None and not isinstance(layer, nn.Identity):
                _read(layer, t)

    def write(self, t: Tensor | None) -> None:
        """Give T times the output."""
        for layer in (self.out, self.skip):
            if isinstance(layer, _ConvNorm):
                layer.write(t)


class _Derivative(nn.Module):
    """Depthwise 3x3 kernels, ``kernels`` per channel of u, the same for all channels if ``shared``."""

    def __init__(self, inputs: int, outputs: int, *, kernels: int, shared: bool, stride: int) -> None:
        super().__init__()
        self.repeats = outputs // kernels if shared else 1
        self.weight = nn.Parameter(torch.empty(kernels if shared else outputs, 1, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.groups, self.stride = inputs, stride

    def forward(self, u: Tensor) -> Tensor:
        weight = self.weight.repeat(self.repeats, 1, 1, 1)
        return F.conv2d(u, weight, stride=self.stride, padding=1, groups=self.groups)


class _ConvNorm(nn.Module):
    """Convolution and batch norm; ``fold`` makes one convolution of the two."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, u: Tensor) -> Tensor:
        return self.norm(self.conv(u))

    def fold(self) -> None:
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()

    def write(self, t: Tensor | None) -> None:
        if t is not None:
            self.conv.weight.copy_(torch.einsum("ab,bcij->acij", t, self.conv.weight))
            assert self.conv.bias is not None
            self.conv.bias.copy_(t @ self.conv.bias)


def _read(layer: nn.Module, t: Tensor | None) -> None:
    """Multiply the weight of a linear layer or convolution by T^-1 on its input side."""
    if t is None:
        return
    target = layer.conv if isinstance(layer, _ConvNorm) else layer
    assert isinstance(target, nn.Conv2d | nn.Linear)
    flat = target.weight.flatten(1)  # 1x1 kernels only
    changed = torch.linalg.solve(t.to(flat.dtype), flat, left=False)
    target.weight.copy_(changed.reshape(target.weight.shape))
