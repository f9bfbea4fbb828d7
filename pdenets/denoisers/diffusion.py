"""A diffusion model as a denoiser: one evaluation, at the step whose noise is that of the smoothing.

N. Carlini, F. Tramer, K. D. Dvijotham, L. Rice, M. Sun and J. Z. Kolter, "(Certified!!) Adversarial
Robustness for Free!", ICLR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.errors import InvalidSetting, MissingExtra, UnreadableFile
from pdenets.denoisers.levels import check_images

#: What a network may have been trained to predict.
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusionDenoiser(nn.Module):
    """The clean image that a diffusion model predicts in one evaluation, without any sampling.

    The model was trained on images s in [-1, 1] under z_t = sqrt(a_t) s + sqrt(1 - a_t) noise, a_t being
    ``alphas_cumprod``. Inputs x in [low, high] are s = (2 x - low - high) / (high - low), so noise of
    standard deviation sigma on x is noise of 2 sigma / (high - low) on s: twice sigma for pixels in [0,
    1]. The step is the one with (1 - a_t) / a_t closest to the square of that, the network's input is
    sqrt(a_t) times the scaled image, and what it predicts is turned into s, clipped to [-1, 1], and
    scaled back.

    ``network``: called with (z, steps (batch,)); returns the prediction, or an object with it as
    ``sample``. ``prediction``: "epsilon" (the noise), "v_prediction" (sqrt(a) noise - sqrt(1 - a) s) or
    "sample" (s). Told the sigma of the smoothing. Raises InvalidSetting, also when called with a sigma
    beyond the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        alphas_cumprod: Sequence[float] | Tensor,
        *,
        prediction: str = "epsilon",
        low: float = 0.0,
        high: float = 1.0,
        clip: bool = True,
    ) -> None:
        super().__init__()
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64).flatten()
        falling = len(alphas) > 0 and bool(((alphas > 0) & (alphas < 1)).all())
        if prediction not in PREDICTIONS or not falling or not low < high:
            raise InvalidSetting(
                "this is no diffusion model with a known schedule",
                why=f"prediction {prediction!r} is not one of {', '.join(PREDICTIONS)}"
                if prediction not in PREDICTIONS
                else "alphas_cumprod must lie between 0 and 1, and low below high",
                remedy="give prediction_type and alphas_cumprod of the model's own scheduler",
            )
        self.network = network
        self.prediction, self.low, self.high, self.clip = prediction, float(low), float(high), clip
        #: Of the schedule, in double precision whatever the network's type: plain numbers, not a buffer.
        self.schedule = tuple(float(a) for a in alphas)
        self.settings = {"prediction": prediction, "low": self.low, "high": self.high, "clip": clip,
                         "steps": len(alphas)}  # fmt: skip
        self.requires_grad_(False)
        self.eval()

    def step(self, sigma: float) -> tuple[int, float]:
        """The step whose noise is that of ``sigma`` on the inputs, and its a_t. Raises InvalidSetting."""
        wanted = 2 * float(sigma) / (self.high - self.low)
        levels = [math.sqrt((1 - a) / a) for a in self.schedule]
        if not levels[0] * 0.5 <= wanted <= levels[-1]:
            factor = (self.high - self.low) / 2
            raise InvalidSetting(
                f"the diffusion model knows no noise of sigma = {sigma:g}",
                why=f"its schedule runs from {levels[0] * factor:.3g} to {levels[-1] * factor:.3g} in the "
                "units of the inputs",
                remedy="smooth with a sigma inside it",
            )
        step = min(range(len(levels)), key=lambda t: abs(math.log(levels[t] / wanted)))
        return step, self.schedule[step]

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """The predicted clean images (batch, channels, height, width)."""
        step, alpha = self.step(sigma)
        z = math.sqrt(alpha) * (2 * x - self.low - self.high) / (self.high - self.low)
        found = self.network(z, torch.full((len(x),), step, dtype=torch.long, device=x.device))
        found = found if isinstance(found, Tensor) else found.sample
        # A model that predicts its variance too appends it as further channels.
        image = self._clean(z, found[:, : x.shape[1]], alpha)
        image = image.clamp(-1.0, 1.0) if self.clip else image
        return (image * (self.high - self.low) + self.low + self.high) / 2

    def _clean(self, z: Tensor, found: Tensor, alpha: float) -> Tensor:
        noise = math.sqrt(1 - alpha)
        if self.prediction == "epsilon":
            return (z - noise * found) / math.sqrt(alpha)
        return math.sqrt(alpha) * z - noise * found if self.prediction == "v_prediction" else found

    def extra_repr(self) -> str:
        ends = f"{self.schedule[0]!r}..{self.schedule[-1]!r}"
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items()) + f", alphas_cumprod={ends}"


def diffusion(
    *, input_shape: tuple[int, ...], folder: str, low: float = 0.0, high: float = 1.0
) -> DiffusionDenoiser:
    """A diffusion model from a folder in the format of Hugging Face's ``diffusers``: one-shot prediction.

    ``folder``: on this disk, with the sub-folders "unet" (config.json and safetensors weights) and
    "scheduler" (scheduler_config.json), as ``DDPMPipeline.save_pretrained`` writes them. Nothing is
    downloaded, and weights in pickles are not opened. Raises MissingExtra without the package,
    UnreadableFile, InvalidSetting.
    """
    check_images("diffusion", input_shape)
    try:
        import diffusers  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise MissingExtra(
            "diffusion models cannot be read here",
            why=f"the package {error.name or 'diffusers'!r} is not installed",
            remedy="pip install 'certify-robustness[diffusers]'",
        ) from error
    network = _read(diffusers.UNet2DModel, folder, "unet", use_safetensors=True)
    scheduler = _read(diffusers.DDPMScheduler, folder, "scheduler")
    channels, size = network.config.in_channels, network.config.sample_size
    sides = size if isinstance(size, list | tuple) else (size, size)
    if (channels, *sides) != tuple(input_shape) and size is not None:
        raise InvalidSetting(
            f"the diffusion model in {folder} does not fit inputs of shape {tuple(input_shape)}",
            why=f"it was trained on images of shape {(channels, *sides)}",
            remedy="use a model of these images",
        )
    found = DiffusionDenoiser(
        network, scheduler.alphas_cumprod, prediction=scheduler.config.prediction_type, low=low, high=high
    )
    return found


def _read(kind: Any, folder: str, part: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, subfolder=part, local_files_only=True, **options)
    except Exception as error:  # the package raises errors of many libraries
        config = Path(folder) / part
        raise UnreadableFile(
            f"{config} holds no {part} of a diffusion model",
            why=f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}",
            remedy="give a folder that DDPMPipeline.save_pretrained wrote, with safetensors weights",
        ) from error
