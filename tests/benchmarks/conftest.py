"""One table of ratios: everything is timed in turns with a yardstick, in the same rounds.

A machine's speed changes from minute to minute and its clock means nothing elsewhere. So no
benchmark here reports milliseconds: in each of five rounds every piece of work and its yardstick
(mostly one plain JPEG encode of the same picture at quality 75) run in turns, and what is told is
the median over rounds of the ratio within a round: of medians, or, where the work differs from
picture to picture, of means over pictures, each after an encode of its own. Times are of the
calling thread's own CPU, which other processes on the machine disturb least.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model_store.errors import EnvironmentMissing
from training import assets

# Before numpy and the runtime are imported: one thread each.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

ROUNDS = 5

#: Seconds of yardstick and work that a round may take; large pictures run fewer times.
ROUND_S = 0.4

SIZES = {
    "500x375": (500, 375),
    "1280x720": (1280, 720),
    "1920x1080": (1920, 1080),
    "4000x3000": (4000, 3000),
}

#: Photographs that the mean is taken over.
PHOTOS = 6

Work = Callable[[], object]
PictureWork = Callable[[Image.Image], object]
Ratios = dict[str, float]

_TABLE = pytest.StashKey[dict[str, dict[str, float]]]()


@pytest.fixture
def in_turns(
    benchmark: Any, request: pytest.FixtureRequest
) -> Callable[[Mapping[str, Work], Work, str], Ratios]:
    """Time work in turns with a yardstick; the ratios go to the table and to the JSON report."""

    def measure(work: Mapping[str, Work], yardstick: Work, column: str) -> Ratios:
        pieces = {"": yardstick, **work}
        for piece in pieces.values():
            piece()
        repeats = max(3, min(15, int(ROUND_S / sum(map(_seconds, pieces.values())))))
        return _told(benchmark, request, lambda: _one_round(pieces, repeats), column)

    return measure


@pytest.fixture
def over_pictures(
    benchmark: Any, request: pytest.FixtureRequest, size: str, pictures: list[Image.Image]
) -> Callable[[Mapping[str, PictureWork], PictureWork], Ratios]:
    """Time work on every picture in turns with a yardstick; means go to table and JSON report."""

    def measure(work: Mapping[str, PictureWork], yardstick: PictureWork) -> Ratios:
        for piece in work.values():
            piece(pictures[0])
        once = partial(_one_round_over, pictures, work, yardstick)
        return _told(benchmark, request, once, size)

    return measure


def _told(
    benchmark: Any, request: pytest.FixtureRequest, once: Callable[[], Ratios], column: str
) -> Ratios:
    rounds: list[Ratios] = []
    benchmark.pedantic(lambda: rounds.append(once()), rounds=ROUNDS, iterations=1)
    ratios = {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}
    _tell(benchmark, request.config, ratios, column)
    return ratios


@pytest.fixture
def in_bytes(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Work, str], Ratios]:
    """Tell ratios that are counted, not timed; they go where those of ``in_turns`` go."""

    def count(counted: Work, column: str) -> Ratios:
        ratios: Ratios = benchmark.pedantic(counted, rounds=1, iterations=1)
        _tell(benchmark, request.config, ratios, column)
        return ratios

    return count


@pytest.fixture
def tell(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Ratios, str], None]:
    """Take ratios that were measured otherwise into table and JSON report."""
    return partial(_tell, benchmark, request.config)


def _tell(benchmark: Any, config: pytest.Config, ratios: Ratios, column: str) -> None:
    benchmark.extra_info.setdefault("ratios", {})[column] = ratios
    table = config.stash.setdefault(_TABLE, {})
    for name, ratio in ratios.items():
        table.setdefault(name, {})[column] = ratio


def _one_round(pieces: Mapping[str, Work], repeats: int) -> Ratios:
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(repeats):
        for name, piece in pieces.items():
            times[name].append(_seconds(piece))
    yardstick = statistics.median(times.pop(""))
    return {name: statistics.median(seconds) / yardstick for name, seconds in times.items()}


def _one_round_over(
    pictures: list[Image.Image], work: Mapping[str, PictureWork], yardstick: PictureWork
) -> Ratios:
    """Each piece comes after an encode of its picture, as on a device."""
    encoding, times = 0.0, dict.fromkeys(work, 0.0)
    for picture in pictures:
        for name, piece in work.items():
            encoding += _seconds(partial(yardstick, picture))
            times[name] += _seconds(partial(piece, picture))
    return {name: seconds * len(work) / encoding for name, seconds in times.items()}


def _seconds(work: Work) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table: a row per piece of work, a column per size of picture."""
    table = config.stash.get(_TABLE, {})
    if not table:
        return
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    width = max(map(len, table))
    terminalreporter.section("ratios, medians of five rounds")
    widths = {one: max(12, len(one) + 2) for one in columns}
    heads = "".join(f"{one:>{wide}}" for one, wide in widths.items())
    terminalreporter.write_line(" " * width + heads)
    for name, row in table.items():
        cells = (f"{row[one]:.2f}" if one in row else "" for one in columns)
        line = "".join(f"{cell:>{wide}}" for cell, wide in zip(cells, widths.values(), strict=True))
        terminalreporter.write_line(f"{name:<{width}}{line}")


@pytest.fixture(scope="module")
def installed_photos() -> list[Path]:
    """Real photographs."""
    try:
        return assets.photos("objects")[:PHOTOS]
    except EnvironmentMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=SIZES, ids=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    """Name of a picture's size."""
    return str(request.param)


@pytest.fixture
def pictures(size: str, installed_photos: list[Path]) -> list[Image.Image]:
    """The photographs at that size."""
    return [_resized(path, size) for path in installed_photos]


@pytest.fixture
def picture(size: str, installed_photos: list[Path]) -> Image.Image:
    """One photograph at that size."""
    return _resized(installed_photos[0], size)


def _resized(path: Path, size: str) -> Image.Image:
    with Image.open(path) as photo:
        return photo.convert("RGB").resize(SIZES[size], Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def mobilenet() -> Path:
    """MobileNetV2's weights."""
    try:
        return assets.find("mobilenet-v2")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
