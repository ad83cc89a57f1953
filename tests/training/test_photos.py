from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.errors import ImageError
from edge_sdk.folder import find_pictures
from model_store.errors import UsageError
from training.photos import View, readable, split_by_photo, views


def write(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    """A photo whose red grows to the right and whose green grows downward."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def names(count: int) -> list[Path]:
    return [Path(f"photo{number}.jpg") for number in range(count)]


# --- a folder's photos ------------------------------------------------------------------------


def test_photos_are_found_below_a_folder_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.webp", "notes.txt", "jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "album.jpg").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == ["a.jpg", "b.PNG", str(Path("deep/er/c.webp"))]


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.*is not a folder; give one"):
        find_pictures(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        find_pictures(write(tmp_path / "a.png"))


def test_a_folder_without_pictures_tells_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds no pictures; .*\.jpeg.*sub-folders included"):
        find_pictures(tmp_path)


def test_a_truncated_jpeg_among_good_ones_is_left_out_and_named(tmp_path: Path) -> None:
    good = [write(tmp_path / name, (200, 150)) for name in ("a.jpg", "c.png")]
    broken = write(tmp_path / "b.jpg", (200, 150))
    broken.write_bytes(broken.read_bytes()[:-600])
    told: list[str] = []
    assert readable(find_pictures(tmp_path), told.append) == good
    assert len(told) == 1
    assert "b.jpg" in told[0]
    assert "damaged" in told[0]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    told: list[str] = []
    with pytest.raises(UsageError, match=r"None of the pictures can be read"):
        readable(find_pictures(tmp_path), told.append)
    assert len(told) == 1


# --- views ------------------------------------------------------------------------------------


def test_the_whole_photo_comes_first_and_crops_follow() -> None:
    whole, *crops = views(names(1), 20, long_side=None, seed=0)
    assert whole.box == (0.0, 0.0, 1.0, 1.0)
    for left, top, right, bottom in (view.box for view in crops):
        assert 0.0 <= left < right <= 1.0
        assert 0.0 <= top < bottom <= 1.0
        assert right - left == pytest.approx(bottom - top)  # the photo's aspect
        assert 0.5 <= right - left <= 0.9
    assert len({view.box for view in crops}) == 19


@given(
    count=st.integers(1, 6), extra=st.integers(1, 3), each=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_adding_photos_changes_no_other_photos_views(
    count: int, extra: int, each: int, seed: int
) -> None:
    few = views(names(count), each, long_side=640, seed=seed)
    many = views(names(count + extra)[::-1], each, long_side=640, seed=seed)
    for photo in {view.photo for view in few}:
        assert [v for v in few if v.photo == photo] == [v for v in many if v.photo == photo]


@given(fewer=st.integers(1, 5), more=st.integers(0, 5))
def test_more_views_of_a_photo_begin_with_the_same_ones(fewer: int, more: int) -> None:
    long = views(names(1), fewer + more, long_side=None, seed=0)
    assert views(names(1), fewer, long_side=None, seed=0) == long[:fewer]


def test_another_seed_gives_other_crops() -> None:
    first, second = (views(names(3), 4, long_side=None, seed=seed) for seed in (0, 1))
    assert [v.box for v in first if v.box[2] < 1.0] != [v.box for v in second if v.box[2] < 1.0]


def test_a_view_opens_its_part_of_the_photo(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", (100, 80))
    picture = View(path, (0.25, 0.5, 0.75, 1.0)).open()
    assert (picture.mode, picture.size) == ("RGB", (50, 40))
    expected = Image.open(path).crop((25, 40, 75, 80))
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((200, 100), 50, (50, 25)),
        ((100, 200), 50, (25, 50)),
        ((40, 30), 50, (40, 30)),  # never enlarged
        ((200, 100), None, (200, 100)),
        ((300, 1), 30, (30, 1)),
    ],
)
def test_the_longer_side_is_scaled_down(
    tmp_path: Path, size: tuple[int, int], long_side: int | None, expected: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.png", size)
    assert View(path, long_side=long_side).open().size == expected


def test_every_crop_of_a_tiny_photo_has_pixels(tmp_path: Path) -> None:
    for size in ((1, 1), (2, 1), (3, 2)):
        path = write(tmp_path / "tiny.png", size)
        for view in views([path], 30, long_side=None, seed=0):
            assert min(view.open().size) >= 1


def test_another_camera_sees_the_same_view(tmp_path: Path) -> None:
    seen: list[int] = []

    def camera(picture: Image.Image, seed: int) -> Image.Image:
        seen.append(seed)
        return picture.convert("L").convert("RGB")

    day = View(write(tmp_path / "a.png", (100, 80)), (0.0, 0.0, 0.5, 0.5))
    night = day.through(camera, 7)
    assert (night.photo, night.box) == (day.photo, day.box)
    assert night.open().size == day.open().size
    assert len(set(night.open().getpixel((9, 9)))) == 1  # type: ignore[arg-type]
    assert seen == [7, 7]


def test_a_photo_that_went_away_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        View(tmp_path / "gone.jpg").open()


# --- the split --------------------------------------------------------------------------------


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[View], list[float]]:
    """Views of enough photos, some of them with many views, and shares that sum to one."""
    weights = draw(st.lists(st.integers(1, 100), min_size=1, max_size=4))
    photos = names(draw(st.integers(len(weights), 30)))
    each = draw(st.lists(st.integers(1, 5), min_size=len(photos), max_size=len(photos)))
    items = [
        v for p, n in zip(photos, each, strict=True) for v in views([p], n, long_side=1, seed=0)
    ]
    return draw(st.permutations(items)), [weight / sum(weights) for weight in weights]


@given(splits(), st.integers(0, 9))
def test_a_split_keeps_views_of_a_photo_together_and_loses_none(
    case: tuple[list[View], list[float]], seed: int
) -> None:
    items, shares = case
    parts = split_by_photo(items, shares, seed=seed)
    photos = [{view.photo for view in part} for part in parts]
    assert len(parts) == len(shares)
    assert all(parts), "no part is empty"
    assert sum(map(len, photos)) == len(set().union(*photos)), "no photo is in two parts"
    assert sorted(v.photo for part in parts for v in part) == sorted(v.photo for v in items)


@given(splits(), st.integers(0, 9))
def test_a_split_depends_on_photos_and_seed_only(
    case: tuple[list[View], list[float]], seed: int
) -> None:
    items, shares = case
    once = split_by_photo(items, shares, seed=seed)
    again = split_by_photo(sorted(items, key=lambda view: view.box), shares, seed=seed)
    assert [{v.photo for v in part} for part in once] == [{v.photo for v in p} for p in again]


def test_parts_have_their_shares_of_the_photos() -> None:
    items = views(names(100), 3, long_side=None, seed=0)
    parts = split_by_photo(items, (0.6, 0.3, 0.1), seed=0)
    assert [len(part) for part in parts] == [180, 90, 30]


def test_a_tiny_share_still_gets_a_photo() -> None:
    items = views(names(10), 1, long_side=None, seed=0)
    assert [len(part) for part in split_by_photo(items, (0.5, 0.01, 0.49), seed=0)] == [5, 1, 4]


def test_another_seed_splits_otherwise() -> None:
    items = views(names(40), 1, long_side=None, seed=0)
    first, second = (split_by_photo(items, (0.5, 0.5), seed=seed) for seed in (0, 1))
    assert first != second


def test_fewer_photos_than_parts_is_a_clear_error() -> None:
    items = views(names(2), 50, long_side=None, seed=0)
    with pytest.raises(UsageError, match=r"2 photo\(s\) cannot be split into 3 parts"):
        split_by_photo(items, (0.6, 0.2, 0.2), seed=0)
