"""A denoiser in front of a classifier: one base classifier, certified like any other.

What is smoothed is f o D, the classifier f behind the denoiser D. Cohen's theorem asks nothing of a base
classifier but to be a fixed function, so sampling, radii and error accounting stay as they are, on the
lattice too: the noisy lattice point goes in, D works inside the model. A network that never saw noise
abstains nearly everywhere on its own; behind a denoiser it sees what it was trained for.

H. Salman, M. Sun, G. Yang, A. Kapoor and J. Z. Kolter, "Denoised Smoothing: A Provable Defense for Pretrained
Classifiers", NeurIPS 2020.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from certify.calls import checked
from certify.contract import check_model
from certify.errors import CertifyError, InvalidModel, InvalidSetting, NondeterministicModel

#: Two ways to write one noise level agree to this, relatively.
_CLOSE = 1e-6
#: Inputs on which a denoiser is tried when it is put in front of a classifier.
_TRIED = 2


@checked
def denoised(
    model: Callable[[Tensor], Any], denoiser: Callable[..., Tensor], *, sigma: float | None = None
) -> Denoised:
    """``model`` behind ``denoiser``: x -> model(denoiser(x)), a base classifier like any other.

    ``model``: an nn.Module in eval mode or a callable from (batch, *shape) to class scores (also one
    outside torch: an ONNX file, a scikit-learn estimator inside ``certify.wrap``), or a segmenter.
    ``denoiser``: an nn.Module in eval mode (one of ``pdenets.denoisers``, a checkpoint from
    ``certify.load``, or your own) or a callable from (batch, *shape) to (batch, *shape). If it takes a
    keyword ``sigma``, it is told the noise level ``sigma``: a standard deviation in the units of the
    inputs, by default the level it was trained for.

    The identity of a run holds both: kinds, settings and weights. Weights are shared, not copied.

    Raises InvalidModel for a part in training mode, weights that are no numbers or an answer of another
    shape; NondeterministicModel for a denoiser that draws random numbers of its own; InvalidSetting for a
    level that the denoiser was not trained for, or a missing one.
    """
    return Denoised(model, denoiser, sigma=sigma)


class Denoised(nn.Module):
    """``model`` behind ``denoiser``; see ``denoised``. ``sigma`` is what the denoiser is told, or None."""

    def __init__(
        self, model: Callable[[Tensor], Any], denoiser: Callable[..., Tensor], *, sigma: float | None = None
    ) -> None:
        super().__init__()
        _check_parts(model, denoiser)
        self.denoiser = denoiser
        self.model = model
        #: Where the denoiser came from, for whoever opened it from a file. Names that begin so are no
        #: part of what a model is: the same denoiser from another place decides alike.
        self.certify_source: str | None = None
        self.told = takes_sigma(denoiser)
        self.sigma = level_told(denoiser, sigma)
        # Not train(False): that would switch the caller's own modules.
        self.training = False
        self.certify_header: Any = getattr(model, "certify_header", None)
        header = self.certify_header or getattr(denoiser, "certify_header", None)
        if header is not None:
            _try(self, header)

    def forward(self, x: Tensor) -> Any:
        """What the model answers to the denoised inputs (batch, *shape)."""
        return self.model(self.clean(x))

    def clean(self, x: Tensor) -> Tensor:
        """The denoised inputs (batch, *shape)."""
        found = self.denoiser(x, sigma=self.sigma) if self.told else self.denoiser(x)
        if not isinstance(found, Tensor) or found.shape != x.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InvalidModel(
                f"the denoiser returned {shape} for inputs of shape {tuple(x.shape)}",
                why="it must give every input back in its own shape",
                remedy="wrap it in a module that does, and takes the inputs in their own units",
            )
        return found

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"

    def described(self) -> dict[str, Any]:
        """Both parts by kind and digest, as JSON types: what a run keeps beside its combined digest."""
        return {"denoiser": _described(self.denoiser) | {"sigma": self.sigma},
                "classifier": _described(self.model)}  # fmt: skip

    @property
    def form(self) -> str:
        """What tells two denoisers of equal weights apart: kind, settings and the level they are told."""
        return f"{_form(self.denoiser)} sigma={self.sigma!r}"


def what_is_certified(model: Any) -> str:
    """How a guarantee names its base classifier."""
    return "this classifier behind this denoiser" if behind_denoiser(model) else "this model"


def behind_denoiser(model: Any) -> Denoised | None:
    """The denoised classifier in ``model``: itself, or inside ``certify.wrap``; None where there is none."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return next((part for part in parts if isinstance(part, Denoised)), None)


def takes_sigma(denoiser: Callable[..., Any]) -> bool:
    """Whether the denoiser is told the noise level: whether its call has a parameter named ``sigma``."""
    call = denoiser.forward if isinstance(denoiser, nn.Module) else denoiser
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False
    return "sigma" in parameters


def levels(denoiser: Any) -> tuple[float, ...]:
    """The noise levels a denoiser says it was trained for (its ``sigmas``), in order; () if it says none."""
    return tuple(sorted(float(sigma) for sigma in getattr(denoiser, "sigmas", None) or ()))


def level_told(denoiser: Any, sigma: float | None) -> float | None:
    """The level to tell ``denoiser``, None for one that takes none. Raises InvalidSetting."""
    known = levels(denoiser)
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise InvalidSetting(
            f"sigma = {sigma!r} cannot be told to a denoiser",
            why="it is the standard deviation of the noise: a finite number > 0",
            remedy="give the sigma of the smoothing, such as 0.25",
        )
    if not takes_sigma(denoiser):
        return None
    if sigma is None and len(known) == 1:
        return known[0]
    if sigma is None:
        raise InvalidSetting(
            "the denoiser must be told the noise level",
            why=f"it was trained for {_text(known)}"
            if known
            else "it takes sigma and names no level of its own",
            remedy="certify.denoised(model, denoiser, sigma=0.25)",
        )
    if known and not known[0] * (1 - _CLOSE) <= sigma <= known[-1] * (1 + _CLOSE):
        raise InvalidSetting(
            f"the denoiser knows nothing of sigma = {sigma:g}",
            why=f"it was trained for {_text(known)}",
            remedy=f"tell it sigma = {min(known, key=lambda known: abs(known - sigma)):g}, or train one for "
            f"{sigma:g}: certify train --denoiser NAME --sigma {sigma:g}",
        )
    return float(sigma)


def refuse_randomness(model: Denoised, x: Tensor) -> None:
    """Raise NondeterministicModel where the denoiser draws from a random stream that nothing keys.

    Every torch operation of one call on ``x`` is watched: a draw counts also where it changes nothing
    this time. Draws from an explicit ``torch.Generator`` are let through: whether they make a fixed
    function is for the probe to see. What is drawn outside torch shows there as well.
    """
    watch = _Draws()
    with torch.inference_mode(), watch:
        model.clean(x.clone())
    if watch.found:
        raise NondeterministicModel(
            "the denoiser draws random numbers of its own",
            why=f"its call uses {watch.found}; a certificate is about a fixed function of the input",
            remedy="take the sampling out (one-shot prediction, dropout off), or key it: a torch.Generator "
            "made with a fixed seed inside the call, one draw per input",
        )


class _Draws(TorchDispatchMode):
    """Notes the first torch operation after which a global random stream stands elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # keeping torch's compiler away from this would import it, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.found is not None or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        # The tag says that an operation can draw: dropout carries it in evaluation mode, too.
        before = _streams()
        out = func(*args, **kwargs)
        if any(not torch.equal(a, b) for a, b in zip(before, _streams(), strict=True)):
            self.found = str(func.name())
        return out


def _streams() -> list[Tensor]:
    """Where the global random streams stand: the CPU's, and those of GPUs in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.random.get_rng_state(), *gpus]


def _check_parts(model: Any, denoiser: Any) -> None:
    """A classifier and a denoiser, each a fixed function, and not the one in the other's place."""
    if not callable(denoiser):
        raise InvalidModel(
            f"the denoiser is a {type(denoiser).__name__}",
            why="it cannot be called on a batch of inputs",
            remedy="pass a module or function (batch, *shape) -> (batch, *shape); a checkpoint opens with "
            "certify.load(path)",
        )
    task = getattr(getattr(denoiser, "certify_header", None), "task", "denoising")
    if task != "denoising" or getattr(getattr(model, "certify_header", None), "task", "") == "denoising":
        raise InvalidSetting(
            "classifier and denoiser are in each other's place, or one of them is given twice",
            why=f"the denoiser's checkpoint says that its task is {task}"
            if task != "denoising"
            else "the model's checkpoint says that it is a denoiser",
            remedy="certify.denoised(classifier, denoiser); on the command line --model and --denoiser",
        )
    check_model(model)
    if isinstance(denoiser, nn.Module):
        try:
            check_model(denoiser)
        except InvalidModel as error:
            raise InvalidModel(
                error.what.replace("the model", "the denoiser"),
                why=error.why,
                remedy=error.remedy.replace("model.eval()", "denoiser.eval()"),
            ) from error


def _try(model: Denoised, header: Any) -> None:
    """One call on a few inputs of the declared shape: shapes fit, and nothing is drawn at random."""
    tensors = [*model.parameters(), *model.buffers()]
    place = tensors[0].device if tensors else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_TRIED, *header.input_shape, generator=generator) * (header.high - header.low) + header.low
    try:
        refuse_randomness(model, x.to(place))
    except (CertifyError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a denoiser of the user's own may refuse an input with any error
        raise InvalidModel(
            f"the denoiser cannot take inputs of shape {tuple(header.input_shape)}",
            why=f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:300]}",
            remedy="use a denoiser for the inputs that the model takes",
        ) from error


def _described(part: Any) -> dict[str, Any]:
    from certify.checkpoints import model_digest

    kind = type(part) if isinstance(part, nn.Module) or not hasattr(part, "__qualname__") else part
    header, registered = getattr(part, "certify_header", None), getattr(part, "registered", None)
    found: dict[str, Any] = {"kind": f"{kind.__module__}.{kind.__qualname__}"}
    if header is not None:
        found |= {"architecture": header.architecture, "arguments": dict(header.arguments)}
    elif isinstance(registered, dict):
        found |= registered
    settings = getattr(part, "settings", None)
    if isinstance(settings, dict):
        found["settings"] = dict(settings)
    return found | {"digest": model_digest(part) if isinstance(part, nn.Module) else None}


def _form(denoiser: Any) -> str:
    kind = type(denoiser) if isinstance(denoiser, nn.Module) else denoiser
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
    return f"{name} {denoiser!r}" if isinstance(denoiser, nn.Module) else name


def _text(known: tuple[float, ...]) -> str:
    return "sigma = " + ", ".join(f"{sigma:g}" for sigma in known)
