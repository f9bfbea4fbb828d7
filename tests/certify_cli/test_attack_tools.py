"""certify attack --with: another library's attack, by name."""

import json

import pytest

pytest.importorskip("torchattacks")


@pytest.fixture
def attacked(cli, checkpoint):
    return lambda *more: cli("attack", "--model", checkpoint, "--limit", 6, "--norm", "inf", *more)


def test_an_attack_named_on_the_command_line_is_judged(attacked):
    done = attacked(
        "--eps", 0.2, "--with", "torchattacks:PGD", "--with-args", '{"steps": 20, "alpha": 0.03}', "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["preset"] == "torchattacks.PGD"
    assert found["counts"]["broken"] > 0, "--eps reaches the attack, whose own default is 8/255"
    small = json.loads(attacked("--eps", 0.002, "--with", "torchattacks:PGD", "--json").stdout)
    assert small["counts"]["broken"] == small["counts"]["unconfirmed"] == 0
    wider = '{"eps": 0.3, "alpha": 0.05}'
    false = json.loads(
        attacked("--eps", 0.05, "--with", "torchattacks:PGD", "--with-args", wider, "--json").stdout
    )
    assert false["counts"]["unconfirmed"] > 0, "what lies outside the ball is a false claim"


@pytest.mark.parametrize(("options", "words"), [
    (("--with", "CW"), "names no attack"), (("--with", "os:system"), "names no attack"),
    (("--with", "torchattacks:Nope"), "has no attack Nope"),
    (("--with", "torchattacks:CW", "--preset", "quick", "--eps", 0.1), "exclude each other"),
    (("--with", "torchattacks:CW", "--with-args", '{"stepps": 3}'), "it takes c, kappa, steps, lr"),
    (("--with", "torchattacks:CW", "--with-args", "steps"), "is not a JSON object"),
    (("--with-args", "{}"), "without --with"),
])  # fmt: skip
def test_what_names_no_attack_is_refused(attacked, options, words):
    done = attacked(*options)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_it_has_no_meaning_with_a_run(cli, run):
    done = cli("attack", run, "--with", "torchattacks:CW")
    assert done.exit_code == 2
    assert "--with has no meaning with a run" in " ".join(done.output.split())


def test_a_target_on_the_command_line(cli, checkpoint):
    words = ("attack", "--model", checkpoint, "--limit", 3, "--json")
    found = json.loads(cli(*words, "--preset", "all-targets").stdout)
    assert found["counts"]["broken"] + found["counts"]["clean_error"] == 3
    refused = cli(*words, "--target", 10)
    assert refused.exit_code == 2
    assert "names no classes" in " ".join(refused.output.split())
    free = json.loads(cli(*words, "--skip", 3).stdout)["median_distance"]
    aimed = cli(*words, "--skip", 3, "--target", 9)
    assert aimed.exit_code == 0, aimed.output
    assert json.loads(aimed.stdout)["median_distance"] > free


def test_a_target_has_no_meaning_with_a_run(cli, run):
    done = cli("attack", run, "--target", 1)
    assert done.exit_code == 2
    assert "--target has no meaning with a run" in " ".join(done.output.split())
