"""Importing published logs: what is read, what is refused, and that nothing passes as verified."""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import special

from certify.bounds import binomial_lower
from certify.errors import InvalidInput, InvalidSetting, RunConflict, UnreadableFile
from certify.radii import radius_down
from certify.records import Record, Run, Status
from certify.store import open_run, records_digest
from certify.store.exports import to_csv, to_locuslab
from certify.store.importing import import_locuslab
from certify.verification import verify
from tests.certify.sample_run import GUARANTEE, record, settings

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
LINES = (
    "0\t3\t3\t0.512\t1\t0:00:14.250000\n20\t8\t5\t0.101\t0\t0:00:13\n40\t1\t-1\t0.0\t0\t1 day, 1:01:01.5\n"
)
SETTINGS = {"sigma": 0.25, "alpha": 0.001, "n": 100_000}


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "published.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_log_becomes_a_run(tmp_path):
    stored = import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "run")
    run = stored.run
    assert [r.index for r in run] == [0, 20, 40]
    assert [r.status for r in run] == [Status.CERTIFIED, Status.CERTIFIED, Status.ABSTAINED]
    assert [r.correct for r in run] == [True, False, False]
    assert [r.radius for r in run] == [0.512, 0.101, 0.0]
    assert [r.seconds for r in run] == [14.25, 13.0, 90061.5]
    assert run[0].p_lower == special.ndtr(0.512 / 0.25)
    assert all(r.counts == () for r in run)
    assert run.accuracy([0.0, 0.5, 0.6])[1].value == pytest.approx(1 / 3)
    assert stored.settings["imported"]["file"] == "published.tsv"
    assert "not verified" in stored.guarantee


def test_export_and_import_return_the_same_log(tmp_path):
    first = import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "a")
    again = tmp_path / "again.tsv"
    again.write_text(to_locuslab(first.run), encoding="utf-8")
    second = import_locuslab(again, **SETTINGS, out=tmp_path / "b")
    assert records_digest(first.run) == records_digest(second.run)


def test_imported_run_never_passes_verification(tmp_path):
    import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "run")
    found = verify(tmp_path / "run", level=2)
    assert not found.ok
    assert found.outcome == "not checked"
    assert not found.failures
    assert any("imported" in check.detail for check in found.unchecked)


def test_importing_again_changes_nothing_and_another_log_is_refused(tmp_path):
    path = log(tmp_path, HEAD + LINES)
    first = import_locuslab(path, **SETTINGS, out=tmp_path / "run")
    second = import_locuslab(path, **SETTINGS, out=tmp_path / "run")
    assert records_digest(first.run) == records_digest(second.run)
    path.write_text(HEAD + LINES.replace("0.512", "0.513"), encoding="utf-8")
    with pytest.raises(RunConflict):
        import_locuslab(path, **SETTINGS, out=tmp_path / "run")


def test_largest_possible_radius_is_accepted_and_a_larger_one_refused(tmp_path):
    best = radius_down(binomial_lower(100_000, 100_000, 0.001), 0.25)
    line = "0\t3\t3\t{}\t1\t0:00:01\n"
    import_locuslab(log(tmp_path, HEAD + line.format(f"{best:.3}")), **SETTINGS, out=tmp_path / "ok")
    with pytest.raises(InvalidInput, match="claims radius"):
        import_locuslab(log(tmp_path, HEAD + line.format(best * 1.02)), **SETTINGS, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(InvalidInput, match="claims radius"):
        import_locuslab(log(tmp_path, HEAD + LINES), sigma=0.12, alpha=0.001, n=100, out=tmp_path / "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0\t3\t3\t0.5\t0\t0:00:01\n", "correct = 0"),
        (HEAD + "0\t3\t-1\t0.5\t1\t0:00:01\n", "correct = 1"),
        (HEAD + "0\t3\t3\tnan\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\t3\t-0.1\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\tcat\t0.1\t1\t0:00:01\n", "cat"),
        (HEAD + "0\t3\t3\t0.1\t1\n", "5 columns"),
        (HEAD + "0\t3\t3\t0.1\t1\tsoon\n", "not a time"),
        (HEAD + "-1\t3\t3\t0.1\t1\t0:00:01\n", "start at 0"),
        (HEAD + LINES + LINES, "already on line 2"),
        (HEAD, "only its heading"),
    ],
)
def test_lines_that_contradict_themselves_are_refused(tmp_path, text, message):
    with pytest.raises(InvalidInput) as caught:
        import_locuslab(log(tmp_path, text), **SETTINGS, out=tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "index,label\n0,1\n"])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(UnreadableFile):
        import_locuslab(log(tmp_path, text), **SETTINGS, out=tmp_path / "run")


def test_missing_or_binary_files_are_refused(tmp_path):
    with pytest.raises(UnreadableFile):
        import_locuslab(tmp_path / "nothing", **SETTINGS, out=tmp_path / "run")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile):
        import_locuslab(tmp_path / "binary", **SETTINGS, out=tmp_path / "run")


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma": math.nan}, {"n": 0}, {"n": 1.5}, {"alpha": 0.6}, {"alpha": 0.0}]
)
def test_impossible_settings_are_refused(tmp_path, wrong):
    with pytest.raises(InvalidSetting):
        import_locuslab(log(tmp_path, HEAD + LINES), **(SETTINGS | wrong), out=tmp_path / "run")


FORGIVEN = {
    "seconds": HEAD + "0\t3\t3\t0.512\t1\t15.4\n",
    "byte-order mark": "\ufeff" + HEAD + "0\t3\t3\t0.512\t1\t0:00:15.4\n",
    "carriage returns": (HEAD + "0\t3\t3\t0.512\t1\t0:00:15.4\n").replace("\n", "\r\n"),
    "old line ends": (HEAD + "0\t3\t3\t0.512\t1\t0:00:15.4\n").replace("\n", "\r"),
    "spaces": " idx \tlabel\tpredict\tradius\tcorrect\ttime  \n0 \t 3\t3 \t0.512 \t1\t 0:00:15.4  \n",
    "a further column": HEAD.replace("time", "time\tacr") + "0\t3\t3\t0.512\t1\t0:00:15.4\t0.9\n",
    "columns in another order": "time\tradius\tcorrect\tidx\tpredict\tlabel\n0:00:15.4\t0.512\t1\t0\t3\t3\n",
    "no last line feed": HEAD + "0\t3\t3\t0.512\t1\t0:00:15.4",
    "blank lines": HEAD + "\n0\t3\t3\t0.512\t1\t0:00:15.4\n\n",
}


@pytest.mark.parametrize("name", FORGIVEN)
def test_what_files_go_through_is_forgiven(tmp_path, name):
    path = tmp_path / "log.tsv"
    path.write_bytes(FORGIVEN[name].encode("utf-8"))
    (only,) = import_locuslab(path, **SETTINGS, out=tmp_path / "run").run
    assert (only.index, only.target, only.label, only.radius, only.correct) == (0, 3, 3, 0.512, True)
    assert only.seconds == 15.4


def test_a_log_of_windows_powershell_is_read(tmp_path):
    path = tmp_path / "log.tsv"
    path.write_bytes((HEAD + LINES).replace("\n", "\r\n").encode("utf-16"))
    assert len(import_locuslab(path, **SETTINGS, out=tmp_path / "run").run) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0\t3\t3\t0_5\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\t3\t٠.٥\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t٣\t٣\t0.5\t1\t0:00:01\n", "column label"),
        (HEAD + "0\t3\t3\t1e999\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\t3\t0.5\t1\t1e999\n", "not a time"),
        (HEAD + "0\t3\t3\t0.5\t1\t-3\n", "not a time"),
        (HEAD + "0\t3\t3\t0.5\t1\t0:00:01\n20\t3\t3\t0.3", "cut off"),
        (HEAD + "9" * 30 + "\t3\t3\t0.5\t1\t0:00:01\n", "column idx"),
    ],
)
def test_a_refused_line_says_what_to_do(tmp_path, text, message):
    with pytest.raises(InvalidInput) as caught:
        import_locuslab(log(tmp_path, text), **SETTINGS, out=tmp_path / "run")
    assert message in str(caught.value)
    assert "again from its source" not in str(caught.value)
    assert "nothing was imported" in str(caught.value)


@pytest.mark.parametrize(
    ("heading", "message"),
    [
        ("idx\tlabel\tpredict\tcorrect\ttime\n", "without the column radius"),
        ("idx\tlabel\tpredict\tradius\tcorrect\tradius\ttime\n", "without the column radius"),
        ("epoch\tlr\ttrain loss\n", "training log"),
        ("Namespace(alpha=0.001)\n", "Namespace"),
        ("idx,label,predict,radius,correct,time\n", "separated by tabs"),
    ],
)
def test_neighbours_of_a_log_are_told_apart(tmp_path, heading, message):
    with pytest.raises(UnreadableFile) as caught:
        import_locuslab(log(tmp_path, heading + "0\t1\t1\t1\t0:00:01\n"), **SETTINGS, out=tmp_path / "run")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("radius", "settings"),
    [
        ("0.978", SETTINGS),
        ("3.92", SETTINGS | {"sigma": 1.0}),
        ("0.5", SETTINGS | {"n": 20}),
        ("1.2", SETTINGS | {"n": 100}),
        ("0.2", SETTINGS | {"n": 1}),
        ("0.9", SETTINGS | {"n": 1000, "alpha": 1e-40}),
    ],
)
def test_a_radius_beyond_the_samples_names_settings_that_would_allow_it(tmp_path, radius, settings):
    path = log(tmp_path, HEAD + f"0\t3\t3\t0.01\t1\t0:00:01\n7\t3\t3\t{radius}\t1\t0:00:01\n")
    with pytest.raises(InvalidInput, match=r"line 3 .* claims radius") as caught:
        import_locuslab(path, **settings, out=tmp_path / "no")
    assert "1 of 2 lines" in caught.value.why or "2 of 2 lines" in caught.value.why
    told = re.findall(r"(alpha|n|sigma) = ([0-9.e+-]+?)(?: at| would|,)", caught.value.remedy)
    assert told
    for i, (name, value) in enumerate(told):
        change = {name: int(value) if name == "n" else float(value)}
        import_locuslab(path, **(settings | change), out=tmp_path / f"yes{i}")


def test_the_best_known_logs_are_told_their_alpha_and_n(tmp_path):
    path = log(tmp_path, HEAD + "0\t3\t3\t0.978\t1\t0:00:01\n")
    with pytest.raises(InvalidInput, match=r"alpha = 0\.01 at this n, or n = 150000 at this alpha"):
        import_locuslab(path, **SETTINGS, out=tmp_path / "no")


@given(
    st.lists(
        st.one_of(
            st.floats(0, 0.95).map(lambda r: f"{r:.3}"),
            st.floats(0, 0.95).map(lambda r: f"{r:.4f}"),
            st.decimals(0, "0.95", places=2).map(str),
        ),
        min_size=1, max_size=20,
    )
)  # fmt: skip
@hypothesis_settings(deadline=None, max_examples=12)
def test_printed_numbers_come_back_to_the_digit(texts):
    lines = HEAD + "".join(f"{i}\t3\t3\t{text}\t1\t0:00:15.4\n" for i, text in enumerate(texts))
    with tempfile.TemporaryDirectory() as folder:
        stored = import_locuslab(log(Path(folder), lines), **SETTINGS, out=Path(folder) / "run")
        back = [line.split("\t")[3] for line in to_locuslab(stored.run).splitlines()[1:]]
        assert back == texts
        csv = [line.split(",")[4] for line in to_csv(stored.run).splitlines()[1:]]
        assert csv == texts
        assert (Path(folder) / "run" / "certificates.csv").read_text() == to_csv(stored.run)


def test_a_spelling_that_is_not_the_radius_is_not_printed():
    record = Record(0, Status.CERTIFIED, label=1, target=1, radius=0.289, details={"printed": "9.9"})
    settings = {"imported": {"format": "locuslab"}, "mode": "imported"}
    for wrong in ("9.9", "0.289\t1", "٠.٢٨٩", 0.289, None, "nan"):
        run = Run([replace(record, details={"printed": wrong})], settings, "")
        assert to_locuslab(run).splitlines()[1].split("\t")[3] == "0.288"
    own = Run([replace(record, details={"printed": "0.289"})], {"mode": "radius"}, "")
    assert to_locuslab(own).splitlines()[1].split("\t")[3] == "0.288"


def test_ten_thousand_rows_are_one_step(tmp_path):
    lines = "".join(f"{i}\t3\t3\t0.5\t1\t0:00:15.4\n" for i in range(10_000))
    began = time.process_time()
    stored = import_locuslab(log(tmp_path, HEAD + lines), **SETTINGS, out=tmp_path / "run")
    assert len(stored.run) == 10_000
    assert time.process_time() - began < 12


def test_records_stored_together_are_stored_or_refused_together(tmp_path):
    first, second = record(0), record(1)
    with open_run(tmp_path / "run", settings(), GUARANTEE) as store:
        store.add(first)
        with pytest.raises(RunConflict):
            store.add_all([second, replace(first, radius=first.radius + 0.01)])
        assert len(store) == 1
        store.add_all([first, second])
        store.add_all([])
        assert [r.index for r in store.run()] == [0, 1]


LOGS = Path(os.environ.get("CERTIFY_DATA", "")) / "logs"


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the published logs beside the data sets")
def test_published_logs_come_back_as_they_are(tmp_path):
    for path in sorted(LOGS.glob("*.tsv"))[:2]:
        sigma = float(path.stem.rsplit("-", 1)[1])
        stored = import_locuslab(path, sigma=sigma, alpha=0.001, n=100_000, out=tmp_path / path.stem)
        assert to_locuslab(stored.run) == path.read_text()
