"""Write the pages of docs with figures: the prose of templates around those in results/*.json.

    python benchmarks/results_page.py

No number of a table is typed by hand. A section that was not measured yet says so.
"""

from __future__ import annotations

import collections
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attack_page
import denoiser_page
import runner_up_page
from common import RESULTS, table

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def main() -> None:
    for template, page, section in (
        ("results_template.md", "results.md", seed_system),
        ("benchmarks_template.md", "benchmarks.md", tool_figures),
        ("population_template.md", "population.md", population),
        ("denoisers_template.md", "denoisers.md", denoiser_page.figures),
        ("runner_up_template.md", "runner-up.md", runner_up_page.figures),
    ):
        text = (HERE / template).read_text()
        (DOCS / page).write_text(
            re.sub(r"\{\{([\w:. -]+)\}\}", lambda m, f=section: f(m[1]) or "*Not measured yet.*", text)
        )


# -- the seed systems ---------------------------------------------------------------------------


def seed_system(name: str) -> str:
    """One section of results.md; "" where it was not measured."""
    sweep = name == "halfmoon_sweep"
    section = read("halfmoon_sweep.json") if sweep else read("seed_systems.json").get(name)
    if not section:
        return ""
    rows = [sweep_row(row) for row in section["rows"]] if sweep else section["rows"]
    bars = "\n".join(
        f"- {'met' if ok else '**not met**'}: {bar}" for bar, ok in section.get("bars", {}).items()
    )
    return "\n\n".join(part for part in (table(rows), bars, footer(section)) if part)


def sweep_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the half-moon sweep; g(., T) is what the residual trains and the paper evaluates."""
    label = {
        "none": "natural",
        "residual": "diffusion residual",
        "gaussian": "Gaussian augmentation (control)",
    }
    at = "T" if row["regulariser"] == "residual" else "T-1"
    return {
        "training": label[row["regulariser"]], "lambda": row["lambda"] or "", "sigma_p^2": row["sigma_p^2"],
        "clean": row[f"{at} linf 0"], **{f"linf {e}": row[f"{at} linf {e}"] for e in ("0.1", "0.2", "0.3")},
    }  # fmt: skip


def footer(section: dict[str, Any]) -> str:
    seeds, machine = section.get("seeds"), section["machine"]
    runs = f"{seeds} seed{'s' if seeds > 1 else ''}, " if seeds else ""
    return (
        f"*{runs}{section['seconds']:.0f} s, {machine['threads']} thread(s), torch {machine['torch']}, "
        f"Python {machine['python']}.*"
    )


# -- statements about a population -------------------------------------------------------------


def population(part: str) -> str:
    """The replays of published logs: those that were replayed often, or all; "mnist": from training on."""
    if part == "mnist":
        return population_mnist()
    found = read("population.json")
    rows = [
        {
            "log": r["log"], "sigma": f"{r['sigma']:g}", "radius": f"{r['radius']:g}",
            "samples": r["samples"],
            "at least": f"{r['lower']:.3f}",
            "share": f"{r['share']:.3f}",
            "at most": f"{r['upper']:.3f}",
            "one copy": f"{r['one_pass']:.3f} of {r['one_pass_share']:.3f}",
            "above": f"{r['lower_above_share']} of {r['replays']}",
        }
        for r in found.get(part, [])
    ]  # fmt: skip
    return f"{table(rows)}\n\n*Means over the replays. {machine_line(found['machine'])}*" if rows else ""


def population_mnist() -> str:
    """One network, from training to both statements."""
    found = read("population_mnist.json")
    if not found:
        return ""
    rows = [
        {
            "copies of each input": r["samples_per_input"], "radius": f"{r['radius']:g}",
            "at least": f"{int(r['lower'] * 1000) / 1000:.3f}", "at most": f"{r['upper']:.3f}",
            "one copy": "" if r["one_pass"] is None else f"{int(r['one_pass'] * 1000) / 1000:.3f}",
            "passes": f"{r['passes']:,}", "seconds": round(r["seconds"]), "verify, level 3": r["verify"],
        }
        for r in found["runs"].values()
    ]  # fmt: skip
    return f"{table(rows)}\n\n*Whole commands. {machine_line(found['machine'])}*"


# -- the tool itself ----------------------------------------------------------------------------


def tool_figures(name: str) -> str:
    """One table of benchmarks.md, named "kind" or "kind:part"; "" where it was not measured."""
    kind, _, part = name.partition(":")
    return {
        "cost": cost, "replay": replay, "replay-logs": replay_logs, "overhead": overhead, "engine": engine,
        "attack": attack, "attack-machine": attack_machine,
        "noise": noise, "inside": inside, "bounds": bounds, "gpu": gpu,
    }[kind](part)  # fmt: skip


def cost(network: str) -> str:
    """What each procedure costs on one network."""
    found = read("certify_cost.json")
    rows = [r for r in found.get("costs", []) if r["model"] == network]
    loop = min((r["seconds_per_input"] for r in rows if r["method"].startswith("published")), default=None)
    if loop is None:
        return ""
    shown = [
        {
            "procedure": r["method"], "noise": r["noise"], "samples per input": round(r["samples_per_input"]),
            "ms per input": round(1e3 * r["seconds_per_input"], 1),
            "published loop / this": f"{loop / r['seconds_per_input']:.3g}",
            **{f"certified at {k}": v for k, v in r["certified_accuracy"].items()},
            "inputs": r["inputs_timed"],
        }
        for r in rows
    ]  # fmt: skip
    return f"{table(shown)}\n\n*{machine_line(found['machine'])}*"


def replay_logs(_: str) -> str:
    """Published logs: per mode, the samples that each needs, and what is lost."""
    found = read("replay_logs.json")
    rows = []
    for mode in dict.fromkeys(r["mode"] for r in found.get("rows", [])):
        of = [r for r in found["rows"] if r["mode"] == mode]
        fewer = sorted(r["saving"] for r in of)
        lost = (
            f"mean radius {100 * min(r['mean_radius_ratio'] for r in of):.1f} % or more"
            if mode == "radius"
            else f"{-min(r['worst_difference_points'] for r in of):.2f} points at most"
        )
        rows.append(
            {
                "mode": mode, "logs": len(of),
                "samples per input": f"{min(r['samples_per_input'] for r in of):,.0f} to "
                f"{max(r['samples_per_input'] for r in of):,.0f}",
                "times fewer": f"{fewer[0]:.3g} to {fewer[-1]:.4g}, median {fewer[len(fewer) // 2]:.3g}",
                "certified accuracy lost": lost,
            }
        )  # fmt: skip
    return f"{table(rows)}\n\n*{machine_line(found['machine'])}*" if rows else ""


def replay(_: str) -> str:
    """Savings and lost accuracy on synthetic logs, by profile and mode."""
    found = read("replay.json")
    rows = [
        {
            "log": f"{r['profile']}, sigma {r['sigma']:g}",
            "mode": f"{r['mode']} {r.get('radius', r.get('step')):g}",
            "samples per input": r["samples"], "saving": r["saving"], "smallest saving": r["least_saving"],
            "points, all radii": r["points_all_radii"], "points at radius 0": r["points_radius_0"] or "",
            "points at the worst radius": r["worst_points"],
            "logs that lose at most 0.05 anywhere": f"{r['logs_within_0.05']} of {found['logs']}",
        }
        for r in found.get("rows", [])
    ]  # fmt: skip
    return table(rows) if rows else ""


def gpu(_: str) -> str:
    """What was measured on each GPU: throughput by part, and what could not run."""
    parts = []
    for path in sorted(RESULTS.glob("gpu-*.json")):
        found = json.loads(path.read_text())
        rows = [
            {"part": part, "what": what, "result": gpu_cell(value)}
            for part in ("forward", "pgd", "certification", "autoattack")
            for what, value in found[part].items()
            if not what.startswith("seconds of")
        ]
        hardware = found["hardware"]
        facts = f"{hardware['gpu']}, torch {hardware['torch']}; {found['parameters']:,} parameters"
        parts.append(f"{table(rows)}\n\n*{facts}; the whole took {found['seconds']:.0f} s.*")
    return "\n\n".join(parts)


def gpu_cell(value: Any) -> str:
    """A figure, or the figures of one run, rounded for reading."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("flags", "batch")}
        return ", ".join(f"{k} {gpu_cell(v)}" for k, v in kept.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def engine(_: str) -> str:
    """A ResNet-20's certification over its bare passes: every process that was run."""
    found = read("engine_cost.json")
    rows = [
        {
            "samples per input": call["samples"],
            "noise": noise,
            "/ bare pass": ", ".join(f"{run['over_bare'][noise]:.2f}" for run in call["processes"]),
            "/ bare pass, channels last": ", ".join(
                f"{run['over_channels_last'][noise]:.2f}" for run in call["processes"]
            ),
        }
        for call in found.get("calls", [])
        for noise in ("gaussian", "lattice")
    ]
    return table(rows) if rows else ""


def overhead(_: str) -> str:
    """Engine time over forward time, by network and noise."""
    found = read("certify_cost.json")
    rows = [
        {
            "network": network,
            "noise": noise,
            "engine / forward": f"{q['median']:.2f} [{q['low']:.2f}, {q['high']:.2f}]",
        }
        for network, by_noise in found.get("engine_over_forward", {}).items()
        for noise, q in by_noise.items()
    ]
    return table(rows) if rows else ""


def attack(part: str) -> str:
    """A table of attack_strength.json, or with "summary-" in front what it comes to."""
    return attack_page.section(read("attack_strength.json"), part)


def attack_machine(_: str) -> str:
    """What the attack tables were measured on."""
    found = read("attack_strength.json")
    return f"*{machine_line(found['machine'])}*" if found else ""


def noise(_: str) -> str:
    """Nanoseconds per noisy coordinate, beside torch's own generator."""
    found = read("noise_cost.json")
    if not found:
        return ""
    rows = [r | {"shape": "x".join(map(str, r["shape"]))} for r in found["draws"]]
    return f"{table(rows)}\n\n*{machine_line(found['machine'])}*"


def inside(data: str) -> str:
    """Noise inside the network beside noise on the input."""
    rows = [
        {
            "network": r["title"], "total noise": f"{r['total_noise']:.3f}",
            "effective sigma": f"{r['effective_sigma']:.3f}", "without noise": r["noise_free_accuracy"],
            **{
                f"certified at {float(k):g}": _with_interval(v, r["intervals"][k])
                for k, v in r["certified"].items()
            },
            "mean radius": f"{r['mean_radius']:.3f}",
        }
        for r in read(f"noisy_resnet_{data}.json").get("rows", [])
    ]  # fmt: skip
    return table(rows) if rows else ""


def bounds(part: str) -> str:
    """Generalization bounds over all networks of the sweep: medians, or Kendall's tau of measures."""
    found = read("bounds_sweep.json")
    if not found:
        return ""
    if part == "tau":
        return table(
            [
                {"measure": r["measure"], "tau": _with_interval(r["tau"], (r["low"], r["high"])),
                 "networks": r["networks"]}
                for r in found["kendall_tau"]
            ]
        )  # fmt: skip
    values: dict[str, list[float]] = {}
    for network in found["networks"]:
        for name, value in network["bounds"].items():
            values.setdefault(name, []).append(value)
    rows = [
        {"bound": name, "median": f"{statistics.median(v):.3f}", "smallest": f"{min(v):.3f}",
         "below 1": f"{sum(x < 1 for x in v)} of {len(v)}"}
        for name, v in sorted(values.items(), key=lambda item: statistics.median(item[1]))
    ]  # fmt: skip
    networks = found["networks"]
    status = collections.Counter[str]()
    for network in networks:
        status.update(network["status"])
    contradicted = sum(len(n["alarms"]) for n in networks)
    summary = (
        f"{len(networks)} networks, {status.total()} risk bounds: {status['holds']} hold, "
        f"{status['undetermined']} undetermined, {contradicted} contradicted."
    )
    return f"{table(rows)}\n\n{summary}"


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def machine_line(machine: dict[str, Any]) -> str:
    threads = machine.get("threads", machine.get("cores"))
    return (
        f"{machine['processor']}, {threads} thread(s), torch {machine['torch']}, Python {machine['python']}."
    )


def read(name: str) -> dict[str, Any]:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
