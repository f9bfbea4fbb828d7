"""Architectures by name, and packages that hide the real ones."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import certify
from certify import checkpoints, registry, siblings
from certify.checkpoints import assembly
from certify.errors import ArchitectureMismatch, InvalidSetting, MissingExtra, ShadowedPackage

HOME = Path(certify.__file__).resolve().parent.parent


def points(monkeypatch, **values):
    known = [importlib.metadata.EntryPoint(n, v, registry.GROUP) for n, v in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: known)
    return known


def test_registered_names_are_found(monkeypatch):
    points(monkeypatch, zeta="json:dumps", alpha="json:loads")
    assert registry.names() == ("alpha", "zeta")
    assert registry.architecture("zeta") is __import__("json").dumps


def test_this_distribution_registers_its_networks():
    assert {"linear", "mlp", "cnn", "convection-diffusion"} <= set(registry.names())


def first_fitting(name):
    """The network for the first of these input shapes that its factory accepts."""
    for shape in ((1, 16, 16), (3, 32, 32), (2,)):
        try:
            return registry.architecture(name)(num_classes=3, input_shape=shape).eval(), shape
        except InvalidSetting:
            continue
    raise AssertionError(f"{name} accepts no usual input shape")


def test_every_registered_network_survives_a_checkpoint(tmp_path):
    for name in registry.names():
        torch.manual_seed(0)
        model, shape = first_fitting(name)
        header = checkpoints.Header(name, {}, 3, shape, 0.0, 1.0, 1 / 255)
        checkpoints.save(tmp_path / "a.safetensors", model, header)
        again = certify.load(tmp_path / "a.safetensors")
        x = torch.rand(2, *shape)
        assert torch.equal(again(x), model(x)), name
        arguments = {"num_classes": 3, "input_shape": shape}
        laid_out = assembly._layout(registry.architecture(name), name, arguments)
        assert laid_out is not None, f"{name} must build on the meta device, where size lies cost nothing"


def test_module_and_factory(tmp_path, monkeypatch):
    (tmp_path / "own_networks_for_test.py").write_text("class Outer:\n    class Net: pass\nvalue = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    found = registry.architecture("own_networks_for_test:Outer.Net")
    assert found.__name__ == "Net"
    assert sys.path[-1] == str(tmp_path), "the working directory is searched last"
    with pytest.raises(ArchitectureMismatch, match="value is a int"):
        registry.architecture("own_networks_for_test:value")
    with pytest.raises(ArchitectureMismatch, match="has no 'Missing'"):
        registry.architecture("own_networks_for_test:Missing")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module_here:net", "no module 'no_such_module_here'"),
        ("json:", "has no ''"),
        ("json:dump.nothing", "has no 'dump.nothing'"),
        ("alfa", "registered are alpha"),
        (":net", "importing  failed"),
    ],
)
def test_names_that_lead_nowhere(monkeypatch, name, cause):
    points(monkeypatch, alpha="json:loads")
    with pytest.raises(ArchitectureMismatch) as caught:
        registry.architecture(name)
    assert cause in caught.value.why
    assert caught.value.remedy


def test_a_near_miss_is_suggested(monkeypatch):
    points(monkeypatch, alpha="json:loads")
    with pytest.raises(ArchitectureMismatch, match="did you mean 'alpha'"):
        registry.architecture("alfa")


def test_a_module_that_fails_on_import(tmp_path, monkeypatch):
    (tmp_path / "breaks_on_import.py").write_text("raise ValueError('broken here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArchitectureMismatch, match="broken here"):
        registry.architecture("breaks_on_import:net")


def test_nothing_registered(monkeypatch):
    points(monkeypatch)
    with pytest.raises(ArchitectureMismatch, match="pip install"):
        registry.architecture("cnn")


def test_one_name_registered_twice(monkeypatch):
    known = [
        importlib.metadata.EntryPoint("net", value, registry.GROUP) for value in ("json:loads", "json:dumps")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: known)
    with pytest.raises(ArchitectureMismatch, match="more than once"):
        registry.architecture("net")
    monkeypatch.setattr(registry, "entry_points", lambda group: [known[0], known[0]])
    assert registry.architecture("net")  # the same one seen twice (two copies of its metadata)


def test_this_installation_is_not_shadowed():
    siblings.check()
    siblings.check("pdenets")


def run_in(folder, code):
    """Python started in a folder, which therefore comes first on its path."""
    program = f"import sys; sys.path[:0] = ['', {str(HOME)!r}]\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120
    )


SHADOWS = {
    "package": ("pdenets/__init__.py", "pdenets"),
    "file": ("attacks.py", "attacks"),
    "package of reports": ("reports/__init__.py", "reports"),
}


@pytest.mark.parametrize("case", SHADOWS)
def test_a_users_file_of_the_same_name_is_named(tmp_path, case):
    place, sibling = SHADOWS[case]
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("open('ran', 'w').close()\n")
    done = run_in(
        tmp_path,
        "from certify import siblings, errors\n"
        f"try: siblings.check({sibling!r})\n"
        "except errors.ShadowedPackage as error: print(error)",
    )
    assert str(tmp_path / place) in done.stdout, done.stderr
    assert "rename" in done.stdout
    assert not (tmp_path / "ran").exists(), "the shadowing file must not be imported"


def test_registered_architectures_check_for_shadows(tmp_path):
    (tmp_path / "pdenets").mkdir()
    (tmp_path / "pdenets" / "__init__.py").write_text("open('ran', 'w').close()\n")
    done = run_in(
        tmp_path,
        "from certify import registry, errors\n"
        "try: registry.architecture('cnn')\n"
        "except errors.ShadowedPackage as error: print(error)",
    )
    assert "is shadowed by" in done.stdout, done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_init_shadows_nothing(tmp_path):
    (tmp_path / "attacks").mkdir()
    done = run_in(tmp_path, "from certify import siblings; siblings.check('attacks'); print('fine')")
    assert done.stdout.strip() == "fine", done.stderr


def test_already_imported_from_elsewhere(tmp_path):
    (tmp_path / "analysis.py").write_text("")
    done = run_in(
        tmp_path,
        "import analysis\nsys.path[:] = sys.path[1:]\n"
        "from certify import siblings, errors\n"
        "try: siblings.check('analysis')\n"
        "except errors.ShadowedPackage as error: print(error)",
    )
    assert str(tmp_path / "analysis.py") in done.stdout, done.stderr


def test_a_sibling_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(siblings, "_location", lambda name: None)
    with pytest.raises(MissingExtra, match="not installed"):
        siblings.check("reports")
    assert issubclass(ShadowedPackage, ImportError)
