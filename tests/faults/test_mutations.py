"""Thousands of damaged and forged run directories: every reader ends with a report or a named error, and no
change of a radius, label or status passes level 2 that the counts do not prove."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from certify.errors import CertifyError
from certify.store import read_run
from certify.verification import Verification, verify
from tests.faults import genuine
from tests.faults.mutations import mutate

pytestmark = pytest.mark.faults

#: Every mutated run is verified, reported and exported; two of these follow, in turn.
_VERBS = (
    ("compare", "RUN"), ("export", "RUN", "--to", "locuslab"), ("merge", "RUN", "--out", "OUT"),
    ("attack", "RUN", "--limit", 1, "--eps", 0.05, "--base", "--preset", "quick"),
    ("bounds", "RUN", "--draws", 5, "--points", 8),
    ("report", "RUN", "GENUINE", "--out", "OUT"), ("verify", "RUN", "--level", 1, "--json"), ("resume",),
    ("verify", "RUN", "--level", 3, "--samples", 50, "--subset", 2), ("attack", "RUN", "--limit", 1),
    ("merge", "RUN", "GENUINE", "--out", "OUT"), ("transfer",), ("export", "RUN", "--to", "csv"),
)  # fmt: skip
#: Files that are only ever replaced in a run directory: what a link of that name points to stays.
_OUTSIDE = ("lock", "report.html", "table.tex", "card.md", "badge.svg", "accuracy.svg")
#: Seconds that one reader may take on one tiny directory, on a machine that is busy with other things.
PATIENCE = 600


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return genuine.build(tmp_path_factory.mktemp("genuine"))


class TooLong(BaseException):
    """A reader waited, or computed, for longer than any honest directory of this size takes."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    def ring(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Campaign:
    """Mutations of genuine runs, what readers made of them, and everything that should not have happened."""

    def __init__(self, runs: Path, scratch: Path) -> None:
        self.runs, self.scratch = runs, scratch
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.honest = {kind: _claims(runs / kind) for kind in genuine.KINDS}

    def go(self, numbers: range) -> None:
        with genuine.inside(self.runs):
            for number in numbers:
                self._one(number)

    def _one(self, number: int) -> None:
        kind = genuine.KINDS[number % len(genuine.KINDS)]
        folder = self.scratch / f"{number}"
        place = folder / kind
        shutil.copytree(self.runs / kind, place)
        what = f"{number}: {kind}, {mutate(number, place)}"
        self.tally["mutations"] += 1
        found: list[Verification] = []
        self._ends(what, "verify", lambda: found.append(verify(place)))
        if found:
            self.tally[found[0].outcome] += 1
            if found[0].ok:
                self._same_claims(what, kind, place)
        self._ends(what, "export", lambda: _escaping(genuine.cli("export", place, "--to", "json")))
        # A reader that writes goes last: what it does to the directory is its own.
        for turn in (0, 1):
            verb = _VERBS[(number // len(genuine.KINDS) * 2 + turn) % len(_VERBS)]
            self._ends(
                what, " ".join(map(str, verb)), lambda verb=verb: self._call(verb, kind, place, folder)
            )
        self._ends(what, "report", lambda: _escaping(genuine.cli("report", place)))
        outside = folder / "outside"
        for victim in outside.glob("*") if outside.exists() else ():
            known = (b"precious\n", _original(self.runs / kind, victim.name))
            if victim.name in _OUTSIDE and victim.read_bytes() not in known:
                self.wrong.append(f"{what}: {victim.name} outside the run was changed")
        if (folder / "victim.txt").exists() != ("a journal" in what):
            self.wrong.append(f"{what}: a file outside the run was deleted")
        shutil.rmtree(folder)

    def _call(self, verb: tuple, kind: str, place: Path, folder: Path) -> None:
        if verb == ("transfer",):
            _transfer(place)
        elif verb == ("resume",):
            _escaping(genuine.cli(*genuine.resume(kind), "--out", place))
        else:
            names = {"RUN": place, "OUT": folder / "out", "GENUINE": self.runs / kind}
            _escaping(genuine.cli(*(names.get(word, word) for word in verb)))

    def _ends(self, what: str, reader: str, call) -> None:
        """The call returns or raises one of this package's errors, in time."""
        self.tally["readings"] += 1
        try:
            with patience():
                call()
        except CertifyError:
            self.tally["refused"] += 1
        except (Exception, TooLong) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.wrong.append(f"{what}; {reader}: {error!r:.200} at {last.filename}:{last.lineno}")

    def _same_claims(self, what: str, kind: str, place: Path) -> None:
        """Level 2 accepted it: then every certificate is one that the genuine run's counts prove.

        A whole record under another index is one: only the data tell whose votes they are (level 3).
        """
        moved = "rows: " in what
        for index, (status, label, radius) in _claims(place).items():
            own = self.honest[kind].get(index)
            known = list(self.honest[kind].values()) if moved else [own] if own else []
            if status == "certified" and not any(
                (status, label) == there[:2] and radius <= there[2] * (1 + 1e-12) for there in known
            ):
                self.wrong.append(f"{what}: level 2 accepts {status, label, radius} for {own}")


def _claims(place: Path) -> dict[int, tuple[str, int | None, float]]:
    return {r.index: (str(r.status), r.label, r.radius) for r in read_run(place).run}


def _escaping(done) -> None:
    """Raise what escaped the command."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def _original(run: Path, name: str) -> bytes | None:
    file = next((run / n for n in (name, f".{name}", f"plots/{name}") if (run / n).is_file()), None)
    return None if file is None else file.read_bytes()


def _transfer(place: Path) -> None:
    import certify
    from certify.transfer import transfer

    data = certify.data.load("d.npz")
    plain, coarse = (
        certify.Smoothed(certify.load("m.pt"), 0.1, data=data, dtype=dtype) for dtype in ("fp32", "bf16")
    )
    transfer(read_run(place), plain, coarse, data.x[: genuine.INPUTS], samples=20, seed=1)


def run_campaign(runs: Path, scratch: Path, numbers: range) -> Campaign:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    campaign = Campaign(runs, scratch)
    campaign.go(numbers)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{dict(campaign.tally)}, {len(campaign.wrong)} wrong, {grown:.0f} MB more memory at its peak")
    if grown > 600:
        campaign.wrong.append(f"{grown:.0f} MB were allocated")
    return campaign


def test_some_damaged_and_forged_runs(runs, tmp_path):
    """A fixed part of the campaign: 0 tracebacks, 0 accepted changes."""
    campaign = run_campaign(runs, tmp_path, range(52))
    assert campaign.wrong == []
    assert campaign.tally["fails"] > 25


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thousands_of_damaged_and_forged_runs(runs, tmp_path, capsys):
    """2,600 more, 200 of each kind of run."""
    with capsys.disabled():
        campaign = run_campaign(runs, tmp_path, range(52, 2652))
    assert not campaign.wrong, "\n".join(campaign.wrong)
    assert campaign.tally["mutations"] >= 2000
