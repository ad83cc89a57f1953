from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from training.measure.figures import chosen_rungs, rate_agreement
from training.measure.stream_figure import moving_average, timeline
from training.measure.style import Width, short

RUNGS = ("q10@0.5", "q15", "q75")

both_widths = pytest.mark.parametrize("width", get_args(Width))


def figure(mean: float) -> dict[str, float]:
    return {"mean": mean, "lo": mean - 0.02, "hi": mean + 0.02}


def policy(size: float, agreement: float) -> dict[str, Any]:
    return {"size_ratio": figure(size), "agreement": {"any_hit": figure(agreement)}}


CURVE = {
    name: [{"name": "x", "size_ratio": size, "agreement": size**power} for size in (0.1, 0.4, 0.9)]
    for name, power in (("fixed_paper", 0.3), ("fixed", 0.2), ("agent", 0.1))
}
POLICIES = {
    "reference": policy(1.0, 1.0),
    "agent": policy(0.2, 0.96),
    "dqn": policy(0.5, 0.9),
    "fixed:q15": policy(0.3, 0.8),
}


def stream(n: int = 60, *, sceneries: tuple[str, ...] = ("day", "night", "day")) -> dict[str, Any]:
    share = -(-n // len(sceneries))
    states = ["inference"] * (n - 10) + ["estimation", "querying"] + ["retraining"] * 8
    return {
        "image": list(range(n)),
        "scenery": [name for name in sceneries for _ in range(share)][:n],
        "state": states,
        "p_est": [0.1] * n,
        "accuracy": [1.0] * n,
        "wire_bytes": [20_000] * n,
        "reference_wire_bytes": [50_000] * n,
    }


def texts(svg: str) -> list[str]:
    """Parse the figure, which proves that it is XML, and return its texts."""
    root = ET.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")]


@both_widths
def test_rate_agreement_names_what_it_draws_and_where_its_axis_starts(width: Width) -> None:
    found = texts(rate_agreement(CURVE, POLICIES, target=0.95, width=width))
    assert {"our agent", "paper DQN", "reference", "target"} <= set(found)
    assert "agreement (any_hit); axis starts at 0.8" in found
    assert "oracle" not in found


@both_widths
def test_rate_agreement_draws_the_opponents_that_are_there(width: Width) -> None:
    names = {"DeepN-JPEG", "DeepN-JPEG, continuous", "perceptual (SSIM)"}
    assert not names & set(texts(rate_agreement(CURVE, POLICIES, width=width)))
    more = dict.fromkeys(("deepn_jpeg", "deepn_jpeg_continuous", "perceptual"), CURVE["fixed"])
    assert names <= set(texts(rate_agreement(CURVE | more, POLICIES, width=width)))


def test_a_random_rung_far_below_is_named_and_leaves_the_others_their_room() -> None:
    found = texts(rate_agreement(CURVE, POLICIES | {"random": policy(0.3, 0.4)}))
    assert "random rung 0.40 ↓" in found
    assert "agreement (any_hit); axis starts at 0.8" in found
    near = texts(rate_agreement(CURVE, POLICIES | {"random": policy(0.3, 0.9)}))
    assert not any("↓" in text for text in near)


def test_rate_agreement_shows_points_beyond_the_reference() -> None:
    wasteful = POLICIES | {"dqn": policy(1.5, 0.99)}
    assert "1.4" in texts(rate_agreement(CURVE, wasteful))


@both_widths
def test_chosen_rungs_has_a_panel_per_scenery_and_names_every_rung(width: Width) -> None:
    shares = {"day": {"q15": 0.996, "q75": 0.004}, "night": {"reference": 1.0}}
    found = texts(chosen_rungs(shares, RUNGS, width=width))
    assert {"day", "night", "q10@0.5", "q15", "q75", "reference"} <= set(found)
    assert {"< 1 %", "100 %"} <= set(found)


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_chosen_rungs_takes_any_number_of_sceneries(count: int) -> None:
    names = [f"scene {index}" for index in range(count)]
    found = texts(chosen_rungs({name: {"q15": 1.0} for name in names}, RUNGS, width="narrow"))
    assert set(names) <= set(found)


@both_widths
def test_timeline_names_sceneries_and_states(width: Width) -> None:
    found = texts(timeline(stream(), width=width))
    assert found.count("day") == 2
    states = {"inference", "estimation", "querying", "retraining"}
    assert {"night", "p_est", "benchmark", "AdaCompress"} | states <= set(found)


def test_timeline_of_one_image_can_be_drawn() -> None:
    one = {name: values[-1:] for name, values in stream().items()}
    assert "retraining" in texts(timeline(one))


def test_timeline_of_a_long_stream_stays_small() -> None:
    long = stream(50_000)
    long["state"] = ["inference", "estimation"] * 25_000
    long["accuracy"] = np.random.default_rng(0).integers(0, 2, 50_000).tolist()
    assert len(timeline(long)) < 300_000


def test_mixed_sceneries_do_not_hide_the_timeline() -> None:
    mixed = stream(sceneries=("day", "night") * 30)
    assert "night" not in texts(timeline(mixed))


def test_states_of_other_names_get_a_lane() -> None:
    other = stream()
    other["state"] = ["paused"] * 60
    assert "paused" in texts(timeline(other))


@pytest.mark.parametrize("name", ["<b>$x$</b>", "夜", "a\x00b", "$\\frac{", "&amp;"])
def test_names_from_outside_are_only_text(name: str) -> None:
    printable = name.replace("\x00", "�")
    assert printable in texts(timeline(stream(sceneries=(name,))))
    assert printable in texts(chosen_rungs({name: {"q15": 1.0}}, RUNGS))


def test_drawing_twice_gives_the_same_text_without_dates() -> None:
    first, again = (timeline(stream()) for _ in range(2))
    assert first == again
    assert "<dc:date>" not in first


def test_figures_can_share_a_page_and_scale() -> None:
    drawn = [timeline(stream(), width=width) for width in get_args(Width)]
    drawn += [rate_agreement(CURVE, POLICIES, width=width) for width in get_args(Width)]
    names = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in drawn]
    assert sum(map(len, names)) == len(set().union(*names))
    for svg, own in zip(drawn, names, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= own
        opening = svg[: svg.index(">")]
        assert "viewBox" in opening
        assert 'width="' not in opening


def test_nothing_global_is_left_behind() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    timeline(stream())
    assert dict(matplotlib.rcParams) == before


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.integers(1, 50))
def test_moving_average_looks_back_only(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    assert moving_average(values, window).tolist() == pytest.approx(expected, abs=1e-9)


def test_long_names_are_cut_visibly() -> None:
    assert short("a very long name", 8) == "a very …"
