"""Ctrl-C at any moment: what is kept is said, the status is 130, and the same command goes on."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from attacks import Budget
from certify.interruption import Interrupted, telling
from certify.sampling.engine import Sampler
from certify.store import read_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

#: Seconds for an interrupted command to end: a second or two on a machine of its own.
PATIENCE = 30


def start(folder, *args: object) -> subprocess.Popen[bytes]:
    """The command, from the moment at which Ctrl-C is in its own hands."""
    words = ["certify", *map(str, args)]
    code = f"import sys; sys.argv = {words!r}\nfrom certify_cli import main\n"
    code += "taken = main._Stop\ndef stop():\n    it = taken()\n    print('up', flush=True)\n    return it\n"
    code += "main._Stop = stop\nmain.main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    return running


def interrupted(running: subprocess.Popen[bytes], *, after: float) -> str:
    """What it says on stderr where SIGINT comes after so many seconds."""
    time.sleep(after)
    assert running.poll() is None, f"it ended before: {running.communicate()}"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    told = err.decode()
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert "interrupted" in told
    return told


LONG = {
    "radius": (
        "--model",
        "{model}",
        "--sigma",
        0.25,
        "--n-max",
        2_000_000,
        "--slack",
        0.001,
        "--out",
        "fresh",
    ),
    "train": ("--arch", "cnn", "--data", "digits", "--epochs", 500, "--out", "fresh.pt"),
    "attack": ("{run}", "--seed", 5),
    "plan": ("--model", "{model}", "--sigma", 0.25, "--pilot-samples", 2_000_000),
    "bounds": ("{run}", "--pac-bayes", "--points", 1000),
    "verify": ("{run}", "--level", 3, "--samples", 10_000_000),
    "compare": ("{run}",),
    "demo": (),
    "import": ("{log}", "--sigma", 0.25, "--out", "imported"),
}


@pytest.fixture(scope="module")
def places(checkpoint, run, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log.tsv"
    lines = "".join(f"{i}\t3\t3\t0.5\t1\t0:00:15.4\n" for i in range(20_000))
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n" + lines)
    return {"model": checkpoint, "run": run, "log": log}


@pytest.mark.parametrize("verb", LONG)
def test_every_long_verb_says_what_it_keeps(verb, places, tmp_path):
    for after in (0.0, 0.4):  # before typer is there, and while something loads
        words = [str(word).format(**places) for word in LONG[verb]]
        told = interrupted(start(tmp_path, verb, *words), after=after)
        assert re.search(r"the same command (begins again|goes on from there)", told), told


def test_a_stopped_radius_keeps_its_inputs_and_goes_on(cli, checkpoint, tmp_path):
    options = ("radius", "--model", checkpoint, "--sigma", 0.25, "--limit", 40, "--n-max", 3000, "--seed", 3,
               "--batch-size", 50, "--out", tmp_path / "run")  # fmt: skip
    draw, calls = Sampler.draw, []

    def stopped(self, requests):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return draw(self, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "draw", stopped)
        done = cli(*options)
    assert done.exit_code == 130, done.output
    stored = len(read_run(tmp_path / "run").run)
    assert 0 < stored < 40
    assert f"{stored} new inputs of 40 are certified and stored in" in done.stderr
    again = cli(*options, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["fresh_inputs"] == 40 - stored


def test_a_stopped_attack_keeps_its_adversarial_inputs(cli, run, tmp_path):
    import shutil

    import attacks.suite

    shutil.copytree(run, tmp_path / "run")
    seen = []
    original = attacks.suite.attack_smoothed

    def stopped(*args, **kwargs):
        if seen:
            raise KeyboardInterrupt
        seen.extend(original(*args, **kwargs))
        return list(seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks.suite, "attack_smoothed", stopped)
        patch.setattr(attacks.suite, "Budget", partial(Budget, batch_size=3, confirm_samples=200, draws=4))
        done = cli("attack", tmp_path / "run", "--seed", 9)
    assert done.exit_code == 130, done.output
    assert "goes on from there" in done.stderr
    kept = read_run(tmp_path / "run")
    assert len(kept.attacks) == 3
    broken = [o.index for o in seen if o.adversarial is not None]
    arrays = kept.arrays("adversarial")
    assert ([] if arrays is None else arrays["index"].tolist()) == broken
    again = cli("attack", tmp_path / "run", "--seed", 9)
    assert again.exit_code == 0, again.output
    assert len(read_run(tmp_path / "run").attacks) == 6


def test_a_stopped_training_names_its_state(cli, tmp_path, monkeypatch):
    import pdenets.loop
    import pdenets.training

    monkeypatch.setattr(pdenets.training, "SAVE_EVERY", 0.0)
    run_epoch = pdenets.loop.Loop.run_epoch

    def third(self, epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        run_epoch(self, epoch)

    options = ("train", "--arch", "linear", "--data", "digits", "--epochs", 4, "--out", tmp_path / "m.pt")
    with monkeypatch.context() as patch:
        patch.setattr(pdenets.loop.Loop, "run_epoch", third)
        done = cli(*options)
    assert done.exit_code == 130
    assert "up to its last saved epoch is in" in done.stderr
    again = cli(*options, "--json")
    assert again.exit_code == 0, again.output
    assert '"resumed_from": 2' in again.stdout


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    code = (
        "import time\nfrom certify_cli.main import _Stop\nstop = _Stop()\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('one', flush=True); time.sleep(60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    for word in (b"up\n", b"one\n"):
        assert running.stdout.readline() == word
        running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert b"stopped at once" in err


def test_a_command_that_was_started_without_ctrl_c_stays_so(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from certify_cli.main import _Stop; _Stop()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_of_a_library_that_was_interrupted_is_no_traceback():
    code = (
        "import os, signal, sys, types\n"
        "import certify_cli.main as entry\n"
        "def app(**_):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT); sum(range(10**7))\n"
        "    except KeyboardInterrupt:\n        raise ImportError('core failed to import')\n"
        "sys.modules['certify_cli.app'] = types.SimpleNamespace(app=app)\n"
        "entry.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_innermost_sentence_stands():
    with pytest.raises(Interrupted) as caught, telling(lambda: "outer"), telling(lambda: "inner"):
        raise KeyboardInterrupt
    assert caught.value.kept == "inner"


def test_lanes_are_at_rest_when_the_interruption_goes_on():
    import threading

    from certify.sampling.lanes import run_in_lanes

    going, work, ended = threading.Event(), [1] * 100, []

    def task() -> None:
        while work:
            going.set()
            time.sleep(0.05)
            if work:
                work.pop()
        ended.append(True)

    def interrupt() -> None:
        going.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_lanes([task, task], abandon=work.clear)
    assert ended == [True, True]


def test_an_import_of_torch_is_not_broken_off_by_an_exception(tmp_path):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    [None for _ in range(10**6)]\n"
        "except BaseException:\n    print('crossed', flush=True)\n    raise\n"
    )
    code = "import sys; sys.argv = ['certify', 'doctor']\nfrom certify_cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert "crossed" not in ended.stdout
    assert "interrupted while torch was loading" in ended.stderr


def test_a_log_gets_a_line_now_and_then(capsys):
    from certify.progress import progress

    with progress("certifying", 200, every=0.05) as update:
        update(12, note="7,472 samples/s")
        time.sleep(0.3)
        update(done=150, note="8 samples/s")
        time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 4
    assert re.fullmatch(r"certifying: 12 of 200 after 0:00:0\d, about \d+ s left, 7,472 samples/s", said[0])
    assert "150 of 200" in said[-1]
    count = len(said)
    time.sleep(0.15)
    assert capsys.readouterr().err == "", f"nothing after the end, {count} lines before"


@pytest.mark.parametrize(
    ("verb", "title"),
    [
        (("radius", "--model", "{model}", "--sigma", 0.25, "--n-max", 2_000_000, "--slack", 0.001,
          "--out", "fresh"), "certifying"),
        (("train", "--arch", "cnn", "--data", "digits", "--epochs", 500, "--out", "fresh.pt"), "training"),
        (("attack", "--model", "{model}", "--eps", 0.01, "--preset", "thorough"), "attack (thorough)"),
    ],
)  # fmt: skip
def test_long_verbs_speak_where_stderr_is_no_terminal(verb, title, places, tmp_path):
    words = ["certify", *(str(word).format(**places) for word in verb)]
    code = f"import sys; sys.argv = {words!r}\nimport certify.progress\n"
    code += "certify.progress.progress.__wrapped__.__kwdefaults__['every'] = 0.2\n"
    code += "from certify_cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        said, began = b"", time.monotonic()
        while title.encode() not in said and time.monotonic() - began < 100:
            if select.select([running.stderr], [], [], 1)[0]:
                said += os.read(running.stderr.fileno(), 4096)
        running.kill()
    assert f"{title}".encode() in said
    assert b" after 0:00:" in said
