"""The smoothed classifier that a verb's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset

#: Options that mean nothing to noise inside the network, and what they are when they are not given.
_PLAIN = {"norm": "2", "dtype": "fp32", "compiled": False, "grid": None}


def smoothed_for(
    network: Any, sigma: float | None, dataset: Dataset, *, noise: str, **options: Any
) -> Smoothed:
    """The smoothed classifier that is asked for; "internal" noise belongs to the network itself."""
    import certify
    from certify.arguments import measured_classes
    from certify.errors import InvalidSetting
    from certify.inside.internal_noise import SmoothedInside

    header = getattr(network, "certify_header", None)
    classes = header.num_classes if header is not None else measured_classes(network, dataset)
    if noise == "internal":
        if sigma is not None or any(options.get(k, plain) != plain for k, plain in _PLAIN.items()):
            raise InvalidSetting(
                "--sigma, --grid, --norm, --dtype and --compile have no meaning for internal noise",
                why="the network has its noise inside; sigma follows from it and its Lipschitz bounds",
                remedy="leave them out: certify radius --model ckpt.pt --noise internal",
            )
        return SmoothedInside(
            network, num_classes=classes, bounds=dataset.bounds, batch_size=options.get("batch_size")
        )
    if sigma is None and header is not None:
        sigma = header.training.get("sigma")
    if sigma is None:
        raise InvalidSetting(
            "the noise level is missing",
            why="the model file does not say under which noise it was trained",
            remedy="add --sigma 0.25",
        )
    return certify.Smoothed(network, sigma, data=dataset, num_classes=classes, noise=noise, **options)
