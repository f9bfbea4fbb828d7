"""What the terminal shows of a certification: rounded against the claim, in the run's norm."""

from __future__ import annotations

import ast
import inspect

import pytest
import typer

from certify.errors import EvidenceFails, InvalidSetting
from certify.records import Record, Run, Status
from certify_cli.main import app
from certify_cli.radius import _note
from certify_cli.summary import enforce, judge, parse_gates, show, summarize


def run_of(records: list[Record], **settings) -> Run:
    known = {"sigma": 0.25, "alpha": 0.001, "norm": "2", "mode": "decide", "scores": "votes"}
    return Run(records, known | settings, "a guarantee")


def proved(index: int, radius: float, target: int | None = 1) -> Record:
    return Record(index, Status.CERTIFIED, label=1, target=target, radius=radius, samples=100)


def test_shares_and_radii_are_printed_rounded_down(capsys):
    records = [proved(i, 0.12345678) for i in range(2999)] + [Record(2999, Status.ABSTAINED, target=1)]
    show(summarize(run_of(records), None))
    said = capsys.readouterr().out
    assert "0.999 │" in said, "2999 of 3000 is no 1.000"
    assert "mean radius 0.1234;" in said


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_the_table_names_the_norm_of_the_run(norm, capsys):
    show(summarize(run_of([proved(0, 0.1)], norm=norm), None))
    assert f"l{norm} radius" in capsys.readouterr().out


def test_without_labels_no_accuracy_is_shown(capsys):
    show(summarize(run_of([proved(0, 0.1, target=None)]), None))
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "certified 1, abstained 0" in said


def test_progress_tells_a_share_only_once_inputs_are_done():
    assert _note([], 5000, 2.0) == "2,500 samples/s"
    done = [proved(0, 0.1), proved(1, 0.1, target=0), Record(2, Status.ABSTAINED, target=1)]
    assert _note(done, 5000, 2.0) == "proved right 33.3%, 2,500 samples/s"
    assert _note([proved(0, 0.1, target=None)], 100, 1.0) == "certified 100.0%, 100 samples/s"


@pytest.mark.parametrize("name", sorted(c.name for c in app.registered_commands))
def test_every_option_says_what_it_is(name):
    for parameter in typer.main.get_command(app).commands[name].params:
        assert parameter.help, f"certify {name}: {parameter.name} has no help"
        assert parameter.help.endswith((".", "?")), f"certify {name}: {parameter.help}"


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda c: c.name)
def test_no_option_is_dead(command):
    source = inspect.getsource(inspect.unwrap(command.callback))
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef)
    used = {node.id for statement in tree.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    given = {a.arg for a in [*tree.args.args, *tree.args.kwonlyargs]}
    assert given <= used


def test_what_is_required_stands_beside_what_was_found(capsys):
    run = run_of([proved(i, 0.3) for i in range(2999)] + [Record(2999, Status.ABSTAINED, target=1)])
    gates = parse_gates(["certified@0.25>=0.9", "clean>=1", "mean_radius>=0.1"])
    found = judge(gates, lambda at: run.mean_radius() if at is None else run.accuracy([at])[0].value)
    assert [row["met"] for row in found["requirements"]] == [True, False, True]
    show(summarize(run, None) | found)
    said = capsys.readouterr().out
    assert "required certified@0.25>=0.9: 0.9996, met\n" in said
    assert "required clean>=1: 0.9996, NOT met\n" in said
    with pytest.raises(EvidenceFails, match=r"clean is 0\.9996, required: at least 1") as missed:
        enforce(found)
    assert "mean_radius" not in str(missed.value)
    enforce(judge([], lambda at: 0.0))


@pytest.mark.parametrize("gate", ["clean>=95", "certified@0.5>=90"])
def test_a_share_above_one_is_refused(gate):
    with pytest.raises(InvalidSetting, match=r"0\.95"):
        parse_gates([gate])
    assert parse_gates(["mean_radius>=2"]) == [("mean_radius", None, 2.0)]
