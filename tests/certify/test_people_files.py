"""Every form in which people have their weights is loaded as what it is, or refused by name."""

import warnings

import pytest
import torch

import certify
from certify.errors import CertifyError
from tests.certify import people_files
from tests.certify.people_files import LOADS, REFUSED, network


def place(tmp_path, row):
    path = tmp_path / f"file{row.ending if '/' not in row.ending else ''}"
    row.write(path)
    return tmp_path / "x" / row.ending.lstrip("/") if "/" in row.ending else path


@pytest.mark.parametrize("form", LOADS)
def test_form_loads_as_the_network_it_is(tmp_path, form):
    row = LOADS[form]
    path = place(tmp_path, row)
    (tmp_path / "x").mkdir(exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = certify.load(path, arch=row.arch, entry=row.entry)
    assert [w for w in caught if w.category is UserWarning] == [] or row.warned
    assert bool(caught) == row.warned, "a choice between weights is never silent, and nothing else is loud"
    lines = loaded.certify_loaded.lines()
    for words in row.said:
        assert any(words in line for line in lines), lines
    if not row.said:
        assert lines == []
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = network(abs(row.seed) if row.seed > 0 else 0)
    seen = {people_files.WRAPPED: (x - torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)) / 0.25}
    seen[people_files.BEHIND_A_NORM] = (x - 0.5) / 0.25
    want = expected(seen.get(row.arch, x))
    if row.seed < 0:  # the file keeps fewer bits of every weight
        torch.testing.assert_close(loaded(x), want, atol=0.05, rtol=0.05)
    else:
        torch.testing.assert_close(loaded(x), want, atol=1e-6, rtol=1e-6)
    assert not any(part.training for part in loaded.modules())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("form", REFUSED)
def test_form_is_refused_by_name(tmp_path, form):
    row = REFUSED[form]
    path = place(tmp_path, row)
    with pytest.raises(CertifyError) as caught:
        certify.load(path, arch=row.arch, entry=row.entry)
    found = f"{type(caught.value).__name__}: {caught.value}"
    for words in row.refused:
        assert words in found
    assert "why:" in found
    assert "do:" in found


def test_the_table_is_long_and_nothing_in_a_file_ran(tmp_path):
    assert len(LOADS) >= 40
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("ending", [".pt", ".th"])
def test_half_precision_is_read_exactly(tmp_path, ending):
    rounded = people_files.half(torch.float16)
    torch.save(rounded, tmp_path / f"a{ending}", _use_new_zipfile_serialization=ending == ".pt")
    loaded = certify.load(tmp_path / f"a{ending}", arch=people_files.NET).state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in rounded.items())


def test_weights_are_those_that_torch_itself_would_load(tmp_path):
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        path = tmp_path / "a.pt"
        torch.save(people_files.lightning("model."), path, **options)
        theirs = torch.load(path, weights_only=True)["state_dict"]
        ours = certify.load(path, arch=people_files.NET).state_dict()
        assert all(torch.equal(theirs[f"model.{name}"], value) for name, value in ours.items())


def test_a_changed_byte_in_a_published_file_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(people_files.saved_bytes())
    content = bytearray(path.read_bytes())
    weight = people_files.state()["fc.weight"].numpy().tobytes()
    content[bytes(content).index(weight) + 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(CertifyError, match="bytes of it have changed"):
        certify.load(path, arch=people_files.NET)


def test_a_file_without_a_header_says_what_it_holds(tmp_path):
    torch.save({"net": people_files.state(), "epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(CertifyError, match=r"9 tensors under 'net' \(conv.weight, conv.bias, ...\)"):
        certify.load(tmp_path / "a.pt")


def test_a_checkpoint_that_describes_itself_has_no_entries(tmp_path):
    net = network()
    certify.save(net, tmp_path / "a.pt", num_classes=10, input_shape=(3, 8, 8))
    with pytest.raises(CertifyError, match="leave --entry out"):
        certify.load(tmp_path / "a.pt", arch=people_files.NET, entry="ema")
