"""Learning a feature codec on a tiny classifier: splits, starts, tables, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from edge_sdk.featurecodec import Entropy
from edge_sdk.featurecodec.rangecoder import TOTAL
from edge_sdk.view import View
from export.feature_network import Adapter, Bottleneck, Decoder, Shape
from model_store.errors import UsageError
from training.codec.context import Context, Refined, bits
from training.codec.learn import coded, integers_of, learn
from training.codec.measure import Measured
from training.codec.network import Network, Recipe
from training.codec.operate import Choice, bytes_at, choose, reach
from training.codec.pictures import FEWEST, Seen, crops, scores, split
from training.codec.start import apply, klt, ridge, sensitivity
from training.codec.tables import context_arrays, counts_of, factorised_arrays, observe

SHAPE = Shape(channels=6, codes=8, rates=3, limit=7, fold=2, hidden=8)


@pytest.fixture
def tail() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(6, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 9),
    )  # fmt: skip
    return layers.requires_grad_(requires_grad=False)


@pytest.fixture
def seen(tail: nn.Module) -> Seen:
    """Smooth maps whose channels are mixtures of fewer."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(48, 3, 3, 3, generator=generator)
    smooth = nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    mixed = torch.einsum("oc,nchw->nohw", torch.randn(6, 3, generator=generator), smooth)
    noisy = mixed + 0.1 * torch.randn(mixed.shape, generator=generator)
    return Seen(noisy.half(), scores(tail, noisy))


def test_the_start_keeps_what_the_tail_looks_at(tail: nn.Module, seen: Seen) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = seen.features.float()
    weight = sensitivity(tail, iter([maps]), 2, generator)
    assert torch.trace(weight) == pytest.approx(24.0, rel=1e-4)
    transform = klt(maps, weight, 8, 2)
    assert (transform.variance.diff() <= 1e-4).all()
    bottleneck, decoder = Bottleneck(SHAPE), Decoder(SHAPE)
    apply(transform, bottleneck, decoder)
    with torch.no_grad():
        decoded = decoder(bottleneck(maps), torch.zeros(len(maps), dtype=torch.long))
    error = (decoded - maps).square().mean() / maps.var()
    assert error < 0.1  # three true channels; the noise on six is what is lost


@settings(max_examples=20)
@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=9).filter(lambda p: sum(p) > 0.01))
def test_counts_are_a_table(p: list[float]) -> None:
    counts = counts_of(np.array([p]))
    assert counts.sum() == TOTAL
    assert counts.min() >= 1


def _batches(learnt: object, codes: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    bottleneck: Bottleneck = learnt.bottleneck  # type: ignore[attr-defined]
    return [(integers_of(bottleneck, codes, rate), rate) for rate in range(3)]


@pytest.mark.parametrize("context", [6, 0])
def test_what_is_learnt_codes_its_integers_in_the_bytes_it_counted(
    tail: nn.Module, seen: Seen, context: int
) -> None:
    recipe = Recipe(shape=SHAPE, lambdas=(3.0, 1.0, 0.3), context=context, steps=24, batch=12)
    learnt = learn(tail, seen, recipe)
    assert learnt.steps == 24
    (codes,) = coded(learnt.bottleneck, seen.features)
    batches = _batches(learnt, codes)
    if learnt.entropy is None:
        arrays = {"kind": "factorised", **factorised_arrays(batches, 3, 8, 7)}
    else:
        tables = observe(learnt.entropy, batches, 7)
        arrays = {"kind": "context", **context_arrays(learnt.entropy, tables)}
    coder = Entropy.from_arrays(arrays)
    sizes = []
    for integers, rate in batches:
        whole = integers.numpy().astype(np.int8)
        payloads = [coder.encode(one, rate) for one in whole]
        sizes.append(sum(map(len, payloads)) / len(payloads))
        assert (coder.decode(payloads[0], rate, (8, 4, 4)) == whole[0]).all()
        if learnt.entropy is not None:
            with torch.inference_mode():
                counted = bits(integers, *learnt.entropy(integers, rate)).sum() / 8 / len(whole)
            # A byte a picture for the coder's end, and quarter steps for the means.
            assert sizes[-1] < 1.1 * float(counted) + 2.0
    assert sizes == sorted(sizes)  # a cheaper kilobyte buys more of them


def test_learning_is_the_same_twice(tail: nn.Module, seen: Seen) -> None:
    recipe = Recipe(shape=SHAPE, lambdas=(3.0, 1.0, 0.3), context=4, steps=6, batch=6, seed=3)
    first, second = (learn(tail, seen, recipe) for _ in range(2))
    for one, other in zip(
        first.bottleneck.parameters(), second.bottleneck.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert first.history == second.history


@pytest.mark.parametrize("tail_rate", [0.0, 1e-4])
def test_nothing_that_learns_stays_behind_on_the_cpu(tail: nn.Module, tail_rate: float) -> None:
    recipe = Recipe(shape=SHAPE, lambdas=(5.0, 2.0, 1.0), context=4, tail_rate=tail_rate)
    network = Network(tail, recipe, Adapter(6, 6)).to("meta")
    assert network.device.type == "meta"
    maps, rate = torch.zeros(3, 6, 8, 8, device="meta"), torch.arange(3, device="meta")
    decoded, answers, spent = network(maps, rate)
    assert {one.device.type for one in (decoded, answers, spent)} == {"meta"}
    integers = integers_of(network.bottleneck, network.bottleneck(maps), 1).clone()
    assert bits(integers, *Refined(network.context)(integers, 1)).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
@pytest.mark.parametrize("tail_rate", [0.0, 1e-4])
def test_what_is_learnt_on_a_gpu_is_on_the_cpu(
    tail: nn.Module, seen: Seen, tail_rate: float
) -> None:
    recipe = Recipe(
        shape=SHAPE, lambdas=(5.0, 2.0, 1.0), steps=9, batch=6, context=4, tail_rate=tail_rate
    )
    learnt = learn(tail, seen, recipe, device=torch.device("cuda"))
    assert learnt.entropy is not None
    for module in (learnt.bottleneck, learnt.decoder, learnt.entropy, tail):
        assert {one.device.type for one in module.parameters()} == {"cpu"}
    assert torch.cat(list(coded(learnt.bottleneck, seen.features))).device.type == "cpu"


def test_minutes_cut_the_steps(tail: nn.Module, seen: Seen) -> None:
    ticks = iter(float(second) for second in range(1000))
    recipe = Recipe(shape=SHAPE, lambdas=(3.0, 1.0, 0.3), steps=500, batch=6, minutes=2.0)
    assert learn(tail, seen, recipe, clock=lambda: 15.0 * next(ticks)).steps < 100


def test_a_tail_that_may_learn_does_and_a_frozen_one_does_not(tail: nn.Module, seen: Seen) -> None:
    before = tail[0].weight.clone()
    plain = Recipe(shape=SHAPE, lambdas=(3.0, 1.0, 0.3), context=4, steps=3, batch=6)
    learn(tail, seen, plain)
    assert torch.equal(before, tail[0].weight)
    tuned = Recipe(
        shape=SHAPE, lambdas=(3.0, 1.0, 0.3), context=4, steps=3, batch=6, tail_rate=1e-3
    )
    learn(tail, seen, tuned)
    assert not torch.equal(before, tail[0].weight)


def test_another_network_s_maps_are_adapted(tail: nn.Module, seen: Seen) -> None:
    maps = seen.features.float()
    mix = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    others = torch.einsum("oc,nchw->nohw", mix, maps.roll(1, dims=2))
    adapter = Adapter(5, 6, 4)
    weight, bias = ridge(others, maps, strength=1e-6)
    with torch.no_grad():
        adapter.linear.weight.copy_(weight)
        adapter.linear.bias.copy_(bias)
        error = (adapter(others) - maps).square().mean() / maps.var()
    assert error < 0.2
    recipe = Recipe(shape=SHAPE, lambdas=(3.0, 1.0, 0.3), context=4, steps=3, batch=6)
    learnt = learn(tail, seen, recipe, adapter=adapter, given=others)
    assert learnt.adapter is adapter
    assert not torch.equal(weight, adapter.linear.weight)


def test_the_refined_network_starts_as_the_shared_one() -> None:
    torch.manual_seed(0)
    context = Context(SHAPE, 5)
    with torch.no_grad():
        for one in context.parameters():
            one.copy_(0.3 * torch.randn(one.shape))
    refined = Refined(context)
    integers = torch.randint(-7, 8, (2, 8, 4, 4)).float()
    for rate in range(3):
        wanted = context(integers, torch.full((2,), rate))
        for one, other in zip(wanted, refined(integers, rate), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_too_few_photos_are_refused() -> None:
    with pytest.raises(UsageError, match=f"at least {FEWEST}"):
        split([Path(f"{number}.jpg") for number in range(FEWEST - 1)], 0)


def test_photos_are_split_once_and_by_seed() -> None:
    paths = [Path(f"{number}.jpg") for number in range(100)]
    parts = split(paths, 1)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert sorted(path for part in parts for path in part) == sorted(paths)
    assert parts != split(paths, 2)


def test_crops_are_the_same_for_one_seed(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    photo.save(path)
    view = View(side=32, resized=40)
    first = crops(path, view, 4, 0)
    assert [one.shape for one in first] == [(32, 32, 3)] * 4
    assert (first[0] == view.pixels(photo)).all()
    assert all((a == b).all() for a, b in zip(first, crops(path, view, 4, 0), strict=True))
    assert any((a != b).any() for a, b in zip(first, crops(path, view, 4, 1), strict=True))


def _measured(agreed: list[float], photos: int = 200) -> Measured:
    rows = np.array([[place < share * photos for share in agreed] for place in range(photos)])
    sizes = np.tile(100.0 * 2.0 ** np.arange(len(agreed)), (photos, 1))
    return Measured(tuple("abcd"[: len(agreed)]), sizes, rows.astype(float))


def test_between_two_rates_pictures_are_mixed() -> None:
    measured = _measured([0.8, 0.9, 1.0])
    spare = (0.95 * 0.05 / 200) ** 0.5
    choice = choose(measured, 0.95)
    assert choice is not None
    assert (choice.low, choice.high) == (1, 2)
    assert choice.share == pytest.approx(0.5 + spare / 0.1)
    reached = reach(measured, choice, 0.95)
    assert reached.size == pytest.approx(200.0 + 200.0 * choice.share, abs=5)
    assert choose(measured, 0.7) == Choice(0, 0, 0.0)
    assert choose(_measured([0.8, 0.9]), 0.95) is None


def test_rates_out_of_order_share_their_mean() -> None:
    choice = choose(_measured([0.8, 0.94, 0.90, 1.0]), 0.93)
    assert choice is not None
    assert (choice.low, choice.high) == (2, 3)


def test_hindsight_mixes_any_two_settings() -> None:
    assert bytes_at(_measured([0.8, 0.9, 1.0]), 0.95) == pytest.approx(300.0)
    assert bytes_at(_measured([0.8, 0.9]), 0.95) is None
