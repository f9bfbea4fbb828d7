"""How the options of a long verb are grouped in its help, and what stands for their types."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_FOREIGN = ("arch", "arch_args", "entry", "mean", "std", "trust")
_ELSEWHERE = "Models from elsewhere"

#: Verb -> panel -> names of its options in the code, in the order in which they are read.
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "Network and data": ("arch", "arch_args", "data", "data_root", "download", "limit", "listing"),
        "Denoiser": (
            "denoiser", "denoiser_args", "classifier", "loss", "query_access", "surrogate", "sigmas", "start",
        ),
        "Noise and regulariser": ("sigma", "regulariser", "options"),
        "Optimisation": (
            "epochs", "lr", "schedule", "batch_size", "optimizer", "nesterov", "average", "weight_decay",
            "augment", "seed", "device",
        ),
        "Output": ("out", "as_json", "help"),
    },
    "plan": {
        "Model and inputs": (
            "model", "denoiser", "denoiser_args", "data", "label", "split", "inputs", "data_root",
        ),
        "Noise": ("sigma", "noise", "grid"),
        "Statistics": ("alpha", "n_max", "at", "step"),
        "Pilot and machine": ("pilot", "pilot_samples", "hours", "seed", "device"),
        _ELSEWHERE: _FOREIGN,
        "Output": ("as_json", "help"),
    },
    "radius": {
        "Model and inputs": (
            "model", "denoiser", "denoiser_args", "pilot", "data", "label",
            "split", "limit", "skip", "data_root",
        ),
        "Noise and norm": ("sigma", "norm", "noise", "grid"),
        "Statistics": (
            "mode", "slack", "step", "at", "n0", "n", "randomised", "runner_up", "correction", "tolerate",
            "scores", "alpha", "n_max", "seed",
        ),
        "Output and requirements": ("out", "require", "challenge", "formulas", "as_json", "help"),
        "Machine": ("device", "dtype", "compiled", "batch_size", "shard", "engine", "workers", "address"),
        _ELSEWHERE: _FOREIGN,
    },
    "population": {
        "Model and inputs": ("model", "data", "split", "limit", "data_root"),
        "Noise": ("sigma", "noise", "grid", "denoiser", "denoiser_args"),
        "Statements": ("radius", "samples", "confidence", "pilot", "about", "one_pass", "shift", "seed"),
        "Output and requirements": ("out", "require", "as_json", "help"),
        "Machine": ("device", "dtype", "compiled", "batch_size", "shard", "engine", "workers", "address"),
        _ELSEWHERE: _FOREIGN,
    },
    "attack": {
        "Model and inputs": (
            "model", "base", "denoiser", "denoiser_args", "data", "label",
            "split", "limit", "skip", "data_root",
        ),
        "Attack": ("preset", "norm", "eps", "grid", "mask", "target", "with_", "with_args", "seed", "device"),
        _ELSEWHERE: _FOREIGN,
        "Output": ("out", "as_json", "help"),
    },
    "bounds": {
        "Model and data": ("model", "data", "data_root"),
        "Bounds": ("delta", "points", "draws", "weight_radius", "pac_bayes", "seed"),
        _ELSEWHERE: _FOREIGN,
        "Output": ("as_json", "help"),
    },
    "verify": {
        "Check": ("level", "model", "denoiser", "as_json", "help"),
        "Fresh samples (level 3)": ("subset", "samples", "seed", "data", "data_root", "device"),
        _ELSEWHERE: ("arch", "trust"),
    },
}  # fmt: skip


class Verbs(TyperGroup):
    """The command itself: its own options say their types as the verbs' do."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_types(super().get_params(ctx))


def group_options(app: typer.Typer) -> None:
    """Give every verb of ``app`` its panels; a verb without any keeps one list."""
    for verb in app.registered_commands:
        verb.cls = _command(PANELS.get(verb.name or "", {}))


def _command(panels: dict[str, tuple[str, ...]]) -> type[TyperCommand]:
    """A command whose help has these panels; what they leave out comes first, under "Options"."""
    place = {name: (order, panel) for order, (panel, name) in enumerate(_pairs(panels))}

    class Grouped(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            found = _with_types(_in_plain_digits(super().get_params(ctx)))
            for option in found:
                if option.param_type_name == "option":
                    option.rich_help_panel = place.get(option.name, (0, None))[1]
            return sorted(found, key=lambda p: place.get(p.name, (-1, None))[0])

    return Grouped


def _pairs(panels: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(panel, name) for panel, names in panels.items() for name in names]


def _with_types(parameters: list[Any]) -> list[Any]:
    """The same; a flag takes no value, and an option that may be repeated takes one at a time."""
    for option in parameters:
        if option.param_type_name != "option" or option.metavar is not None:
            continue
        if option.is_flag:
            option.metavar = ""
        elif option.multiple:
            option.metavar = "<str>"
        elif getattr(option, "min", None) is not None:
            option.metavar = "<int>"  # the range itself stands beside it
    return parameters


#: How a number is typed. What else Python reads as one ("1_000", digits of other scripts) is a slip.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.ASCII | re.I)


def _in_plain_digits(parameters: list[Any]) -> list[Any]:
    """The same; numbers among their values must be typed with the digits 0 to 9."""
    for option in parameters:
        if not hasattr(option.process_value, "plain_digits"):
            option.process_value = _digits_checked(option.process_value, option)
    return parameters


def _digits_checked(process: Callable[..., Any], option: Any) -> Callable[..., Any]:
    def checked(ctx: Any, value: Any) -> Any:
        found = process(ctx, value)
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if number and isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise typer.BadParameter(f"{value!r} is not a number in the digits 0 to 9", ctx=ctx, param=option)
        return found

    checked.plain_digits = True  # type: ignore[attr-defined]  # options are read more than once
    return checked
