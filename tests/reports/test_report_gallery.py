"""Gallery, images, maps, histogram and the table of inputs."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

import reports
from certify.records import Run
from reports.evidence import Evidence
from reports.gallery import attacked_pairs, gallery, noisy_sample
from reports.html import script_json
from reports.plots.histogram import histogram
from reports.plots.maps import maps
from reports.plots.plane import plane
from reports.png import data_uri, diverging, shades, shrink, signed
from reports.tables import INPUT_COLUMNS, class_rows, input_rows
from tests.reports.evidence_fixture import stored_run


def decode(uri: str) -> np.ndarray:
    """A plain PNG reader for the encoder under test: filter 0 rows only, checksums verified."""
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        kind, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[colour]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert depth == 8
    assert not rows[:, 0].any()
    pixels = rows[:, 1:].reshape(height, width, channels)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (6, 3, 3)])
def test_png_holds_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(decode(data_uri(pixels)), pixels)


def test_image_scales():
    assert shades(np.array([[[0.0, 0.5, 1.0, 2.0]]]), 0, 1).tolist() == [[0, 128, 255, 255]]
    assert diverging(np.zeros((2, 2))).tolist() == [[[255] * 3] * 2] * 2
    pixels, peak = signed(np.array([[[0.0, -0.2, 0.1]]]))
    assert peak == 0.2
    assert pixels[0, 1].tolist() == [0, 103, 165]
    big = np.arange(2 * 200 * 100, dtype=float).reshape(2, 200, 100)
    small = shrink(big, 96)
    assert small.shape == (2, 66, 33)
    assert small[0, 0, 0] == pytest.approx(big[0, :3, :3].mean())


def test_gallery_shows_the_stored_examples_from_near_to_far():
    evidence = Evidence.of(stored_run(inputs=60))
    shown = gallery(evidence)
    assert len(shown) == 8
    assert [e.distance for e in shown] == sorted(e.distance for e in shown)
    nearest = evidence.nearest(smoothed=True)
    for e in shown:
        assert e.distance == nearest[e.index]["distance_l2"]
        assert e.radius < e.distance
        assert set(e.images) == {"input", "noisy", "adversarial", "change"}
    first = attacked_pairs(evidence)[0]
    assert np.array_equal(decode(shown[0].images["input"]), shades(first.x, 0, 1))


def test_noisy_image_is_the_sample_the_certificate_used():
    from certify.noise import make_noise

    evidence = Evidence.of(stored_run(inputs=5))
    pair = attacked_pairs(evidence)[0]
    import torch

    noise = make_noise("lattice", sigma=0.25, grid=1 / 16, bounds=(0.0, 1.0))
    out = torch.empty(1, *pair.x.shape)
    base = noise.prepare(torch.from_numpy(pair.x))
    noise.fill(out, bases=[base], ids=[pair.index], starts=[0], counts=[1], seed=7)
    assert np.array_equal(noisy_sample(evidence, pair.index, pair.x), out[0].numpy())


def test_example_of_another_size_is_not_shown():
    stored = stored_run(inputs=20)
    arrays = stored.stored_arrays["adversarial"]
    arrays["x_adv"] = arrays["x"] + 3 * (arrays["x_adv"] - arrays["x"])
    assert gallery(Evidence.of(stored)) == []


def test_inputs_that_are_no_images_are_listed_by_coordinate(tmp_path):
    stored = stored_run(tmp_path / "table", inputs=20)
    arrays = stored.stored_arrays["adversarial"]
    stored.stored_arrays["adversarial"] = {
        "index": arrays["index"],
        "x": arrays["x"].reshape(-1, 64),
        "x_adv": arrays["x_adv"].reshape(-1, 64),
    }
    shown = gallery(Evidence.of(stored))
    change = np.abs(arrays["x_adv"] - arrays["x"]).reshape(-1, 64)
    row = list(arrays["index"]).index(shown[0].index)
    assert [i for i, _, _ in shown[0].values] == sorted(np.argsort(-change[row])[:6])
    assert "Coordinates that changed most" in reports.build(stored).html.read_text(encoding="utf-8")


def test_plane_is_drawn_for_two_dimensional_inputs_only():
    stored = stored_run(inputs=30)
    assert plane(Evidence.of(stored)) is None
    broken = [o for o in stored.attacks if o["smoothed"] and o["status"] == "broken"]
    x = np.random.default_rng(1).normal(size=(len(broken), 2)).astype(np.float32)
    angle = np.linspace(0, 6, len(broken))
    step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * [[o["distance_l2"]] for o in broken]
    stored.stored_arrays["adversarial"] = {
        "index": np.array([o["index"] for o in broken]),
        "x": x,
        "x_adv": x + step.astype(np.float32),
    }
    drawn = plane(Evidence.of(stored)).inline()
    assert drawn.count('class="step"') == len(broken)
    assert drawn.count('class="disc"') == sum(stored.run[o["index"]].radius > 0 for o in broken)


def test_maps_of_scalars_and_velocities(tmp_path):
    stored = stored_run(tmp_path / "maps", inputs=6)
    velocity = np.zeros((2, 8, 8))
    velocity[0] = 1
    stored.documents["maps"] = {
        "fields": [
            {"name": "diffusion", "values": np.arange(64.0).reshape(8, 8).tolist()},
            {"name": "velocity <b>", "values": velocity.tolist(), "note": "block 1"},
        ]
    }
    scalar, arrows = maps(Evidence.of(stored))
    assert "data:image/png" in scalar.inline()
    assert arrows.inline().count('class="arrow"') == 64
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "velocity <b>" not in page
    assert 'id="maps"' in page


def test_histogram_counts_every_input():
    stored = stored_run(inputs=50)
    records = [replace(r, status="abstained", label=None) if r.index < 5 else r for r in stored.run]
    stored.run = Run(records, stored.settings, stored.guarantee)
    evidence = Evidence.of(stored)
    drawn = histogram(evidence).inline()
    counted = [int(note.rsplit(": ", 1)[1]) for note in _notes(drawn)]
    assert sum(counted) == 50
    assert "no certificate: 5" in drawn


def _notes(svg: str) -> list[str]:
    return [part.split("</title>")[0] for part in svg.split("<title>")[1:]]


def test_class_rows_add_up():
    evidence = Evidence.of(stored_run())
    rows = class_rows(evidence)
    assert sum(r.inputs for r in rows) == 200
    total = sum(r.at_headline.value * r.inputs for r in rows) / 200
    assert total == pytest.approx(evidence.certified_accuracy([evidence.headline_radius])[0].value)


def test_input_rows_match_their_headings_and_round_down():
    evidence = Evidence.of(stored_run(inputs=40))
    for row, record in zip(input_rows(evidence), evidence.run, strict=True):
        assert len(row) == len(INPUT_COLUMNS)
        assert row[0] == record.index
        assert row[4] <= record.radius < row[4] + 1e-4


def test_data_in_the_page_cannot_close_its_script():
    hostile = ["</script><script>alert(1)</script>", "<!--", "a & b", "\u2028"]
    text = script_json(hostile)
    assert "<" not in text
    assert json.loads(text) == hostile


def test_size_for_five_hundred_inputs_is_under_three_megabytes(tmp_path):
    stored = stored_run(tmp_path / "big", inputs=500, side=28)
    assert reports.build(stored).html.stat().st_size < 3_000_000


def test_maps_document_keeps_the_busiest_channel():
    rng = np.random.default_rng(0)
    u, v = np.zeros((2, 3, 6, 6)), np.zeros((2, 3, 6, 6))
    u[0, 1] = rng.normal(size=(6, 6))
    diffusion = rng.random((2, 3, 6, 6))
    layers = [{"u": u, "v": v, "Dx": diffusion, "Dy": np.float64(1.0)}, {"u": np.float64(0)}]
    fields = reports.maps_document(layers)["fields"]
    assert [f["name"] for f in fields] == ["velocity, layer 1", "diffusion Dx, layer 1"]
    assert fields[0]["note"] == "layer 1, channel 1"
    assert np.allclose(fields[0]["values"], [u[0, 1], v[0, 1]], rtol=1e-3)
    assert np.allclose(fields[1]["values"], diffusion[0, 1], rtol=1e-3)


def test_maps_of_a_network_whose_layers_are_equations():
    import torch

    from pdenets.global_nets import coefficient_maps, global_cifar

    torch.manual_seed(0)
    network = global_cifar(num_classes=10, input_shape=(3, 16, 16)).eval()
    document = reports.maps_document(coefficient_maps(network, torch.rand(1, 3, 16, 16)))
    stored = stored_run(inputs=3)
    stored.documents["maps"] = json.loads(json.dumps(document))
    assert document["fields"]
    assert len(maps(Evidence.of(stored))) == min(8, len(document["fields"]))
