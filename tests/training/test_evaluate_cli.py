"""``python -m training evaluate`` with everything that may be asked for, at a service in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_sdk import backends, probe
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER, Rung
from edge_sdk.preprocess import SPEC, spec_sha256
from model_store import Draft, Store
from training.__main__ import main
from training.commands.opponents import BASELINES, chosen_baselines
from training.measure import perceptual
from training.measure.noise import NEIGHBOURS

pytest.importorskip("matplotlib")
jsonschema = pytest.importorskip("jsonschema")

LADDER = (Rung(10, scale=0.5), Rung(25), Rung(75))
PICTURES = 6

#: Mean of a picture's strongest colour below which the service wavers: half of the pictures.
DARK = 94.0


class Service:
    """Names the most of three colours, and wavers where the file is coarse and the scene dark."""

    capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096, price_usd=0.001)
    name = "fake://host"

    def __init__(self) -> None:
        self.calls = 0

    def recognize(self, jpeg: bytes) -> Recognition:
        self.calls += 1
        means = np.asarray(Image.open(io.BytesIO(jpeg))).mean(axis=(0, 1))
        wavers = len(jpeg) < 2_500 and means.max() < DARK
        name = "unsure" if wavers else ("red", "green", "blue")[int(means.argmax())]
        return Recognition((Label(name, float(means.max() / 255)),), len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg) + 100

    def close(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setitem(backends._registered, "fake", lambda spec: made)
    return made


@pytest.fixture
def options(photo: Image.Image, make_engine: Callable[..., bytes], tmp_path: Path) -> list[str]:
    (tmp_path / "photos").mkdir()
    for number in range(PICTURES):
        turned = photo.rotate(10 * number).point(lambda value, by=number: value * (12 - by) // 12)
        turned.save(tmp_path / "photos" / f"{number}.png")
    store, model = Store(tmp_path / "store"), make_engine(LADDER)
    agent = store.publish(_draft(model), {"engine.onnx": ("engine", model)}).id
    return [
        *("evaluate", "--agent", agent, "--images", str(tmp_path / "photos"), "--json"),
        *("--backend", "fake://host", "--store", str(store.root), "--run", str(tmp_path / "run")),
    ]


def _draft(model: bytes) -> Draft:
    graph = onnx.load_model_from_string(model).graph

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": "uint8" if value.name == "image" else "float32",
                "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    return Draft(
        algorithm="bandit",
        ladder=[rung.as_dict() for rung in LADDER],
        signature={"inputs": tensors(graph.input), "outputs": tensors(graph.output)},
        preprocessing={"spec": SPEC, "sha256": spec_sha256()},
        reward={"alpha": 1.0, "beta": 0.0},
        operating_points=[{"trade_off": 0.1, "target": 0.9}],
        backend={"name": "fake://host", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=probe.expectation(OnnxEngine(model)),
    )


def run(options: list[str], *more: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main([*options, *more]) == 0
    document = json.loads(capsys.readouterr().out)
    schema = resources.files("training.measure").joinpath("report.schema.json").read_text("utf-8")
    jsonschema.validate(document, json.loads(schema))
    return document


def test_nothing_more_is_asked_than_what_was_asked_for(
    service: Service, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(options, capsys=capsys)
    asked = {rung.pixels for rung in (*LADDER, *PAPER)}
    assert service.calls == document["labels_bought"] == PICTURES * len(asked)
    assert set(document["curve"]) == {"fixed_paper", "fixed", "agent"}
    assert (document["noise"], document["cost"]) == (None, None)
    assert sum(one["pictures"] for one in document["by_confidence"]) == PICTURES


def test_everything_that_may_be_asked_for_is_measured_told_and_paid_for_once(
    service: Service, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (
        *("--baselines", "deepn,perceptual", "--noise", "4"),
        *("--price-per-gb", "0.09", "--uplink", "5", "--images-per-day", "1000"),
    )
    document = run(options, *more, capsys=capsys)
    bought = service.calls
    assert document["labels_bought"] == bought
    assert {"deepn_jpeg", "perceptual"} <= set(document["curve"]) & set(document["policies"])
    assert document["policies"]["deepn_jpeg"]["rung"].startswith("q")
    assert "-t" in document["policies"]["deepn_jpeg"]["rung"]
    assert document["policies"]["perceptual"]["rung"].startswith("SSIM")
    assert document["noise"]["pictures"] == 4
    assert document["cost"]["prices"]["usd_per_call"] == 0.001  # the service's list price
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    for part in ("DeepN-JPEG", "perceptual", "own noise", "0.3 to 0.6", "to upload"):
        assert part in page

    assert main([*(one for one in options if one != "--json"), *more]) == 0
    said = capsys.readouterr().out
    assert service.calls == bought  # every answer was in the ledger
    assert document["noise"]["sentence"] in said
    assert "SSIM ≥" in said
    assert "and the other methods are chosen in hindsight" in said


def test_the_page_shows_failures_and_a_calculator_and_no_picture_where_none_may_leave(
    service: Service, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(options, capsys=capsys)
    bought, page = service.calls, tmp_path / "run" / "report.html"
    failures = document["failures"]
    assert failures["pictures"] == PICTURES
    assert failures["failed"] == round(
        PICTURES * (1 - document["policies"]["agent"]["agreement"]["any_hit"]["mean"])
    )
    assert len(failures["worst"]) == failures["failed"] > 0
    assert all(one["sent"]["picture"] is None for one in failures["worst"])  # on a terminal
    assert page.read_text("utf-8").count("data:image/jpeg;base64,") == 2 * failures["failed"]
    assert document["prices"]["usd_per_call"] == 0.001
    assert "What it is worth at your prices" in page.read_text("utf-8")
    again = run([*options, "--failures", "0"], capsys=capsys)
    assert (again["failures"]["failed"], again["failures"]["worst"]) == (failures["failed"], [])
    assert "data:image" not in page.read_text("utf-8")
    assert service.calls == bought


def test_the_searchs_qualities_cost_two_calls_a_picture_at_most(
    service: Service, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(options, capsys=capsys)
    before = service.calls
    run(options, "--baselines", "perceptual", capsys=capsys)
    known = {rung.pixels for rung in (*LADDER, *PAPER)}
    new = {rung.pixels for rung in perceptual.LADDER} - known
    assert (service.calls - before, len(new)) == (PICTURES * len(new), 2)


def test_noise_without_a_number_takes_a_sample_of_all(
    service: Service, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(options, capsys=capsys)
    before = service.calls
    document = run([*options, "--noise"], capsys=capsys)
    assert document["noise"]["pictures"] == PICTURES
    assert service.calls - before == PICTURES * len(NEIGHBOURS)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--baselines", "deepn,webp"], "the baseline 'webp' is unknown; allowed are deepn, perc"),
        (["--noise", "-1"], "--noise: -1 is given"),
        (["--failures", "-1"], "--failures: -1 is given"),
        (["--uplink", "0"], "--uplink is 0"),
        (["--price-per-gb", "-1"], "--price-per-gb is -1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_paid_for(
    service: Service,
    options: list[str],
    more: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = main([*options, *more])
    except SystemExit as left:  # argparse's own
        code = int(left.code or 0)
    assert code == 2
    assert sentence in capsys.readouterr().err
    assert service.calls == 0


def test_baselines_are_a_list_without_repeats() -> None:
    assert chosen_baselines("perceptual, deepn,perceptual,") == ("perceptual", "deepn")
    assert chosen_baselines("") == ()
    assert set(BASELINES) == {"deepn", "perceptual"}
