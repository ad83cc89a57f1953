from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image

from model_store import cli
from model_store.errors import EnvironmentMissing
from training import assets

PHOTOS = 147
"""Photos that the installed sets hold together, without repetitions."""

EVERY_FILE = {**assets.FILES, **assets.EXTRA_FILES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An assets folder that is empty and not yet there."""
    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def sample(pattern: str) -> str:
    """A file name that a pattern matches."""
    return pattern.replace("jp*g", "jpeg").replace("*", "abc")


# --- where ------------------------------------------------------------------------------------


def test_the_folder_is_in_the_cache_unless_a_variable_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADACOMPRESS_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.folder() == tmp_path / "adacompress" / "assets"
    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path / "mine"))
    assert assets.folder() == tmp_path / "mine"
    assert assets.cache_dir() == tmp_path / "adacompress"


def test_without_variables_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADACOMPRESS_ASSETS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert assets.folder() == Path.home() / ".cache" / "adacompress" / "assets"


# --- what is there ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_missing_asset_is_reported_with_the_command_that_fetches_it(
    name: str, folder: Path
) -> None:
    command = "`python -m training assets" + (" --all`" if name in assets.EXTRA_FILES else "`")
    with pytest.raises(EnvironmentMissing, match=command) as caught:
        assets.find(name)
    assert name in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_an_asset_is_found_by_its_pattern(name: str, folder: Path) -> None:
    put(folder, sample(EVERY_FILE[name]))
    found = assets.find(name)
    assert found.exists()
    # Network code is imported, so the folder to import it from is what is wanted.
    assert found == folder or found == folder / sample(EVERY_FILE[name])


def test_missing_photos_are_reported_with_both_ways_to_get_some(folder: Path) -> None:
    put(folder, "foolbox/data/imagenet_00.jpg")
    assert [path.name for path in assets.photos("objects")] == ["imagenet_00.jpg"]
    with pytest.raises(EnvironmentMissing, match=r"python -m training assets.*--images DIR"):
        assets.photos("objects", "interiors")


def test_photos_come_set_by_set_in_a_stable_order(folder: Path) -> None:
    put(folder, *(f"foolbox/data/imagenet_{n}.jpg" for n in (2, 1)), "foolbox/data/cifar_1.jpg")
    put(folder, *(f"interior_photos/images/{n}" for n in ("b.jpg", "a.jpeg")))
    found = [path.name for path in assets.photos("interiors", "objects")]
    assert found == ["a.jpeg", "b.jpg", "imagenet_1.jpg", "imagenet_2.jpg"]


def test_a_picture_that_repeats_another_is_left_out(folder: Path) -> None:
    kit, soft = "theme_material_kit/static/assets/img", "theme_soft_design/static/img"
    put(folder, f"{kit}/bruce-mars.jpg", f"{kit}/brooke.jpg", f"{kit}/city.jpg")
    put(folder, f"{soft}/bruce-mars.jpg", f"{soft}/home.jpg")
    assert [path.name for path in assets.photos("scenes")] == [
        "bruce-mars.jpg",
        "city.jpg",
        "home.jpg",
    ]


def test_missing_names_what_is_not_installed(folder: Path) -> None:
    everything = [*assets.FILES, *assets.PHOTO_SETS]
    assert assets.missing() == everything
    put(folder, sample(assets.FILES["mobilenet-v2"]))
    put(folder, *map(sample, assets.PHOTO_SETS["objects"]))
    put(folder, sample(assets.PHOTO_SETS["scenes"][0]))  # one of two sources is not enough
    assert assets.missing() == [n for n in everything if n not in ("mobilenet-v2", "objects")]


def test_what_is_extra_is_not_missed_by_default(folder: Path) -> None:
    assert not set(assets.missing()) & set(assets.EXTRA_FILES)
    assert assets.missing_extra() == list(assets.EXTRA_FILES)
    put(folder, sample(assets.EXTRA_FILES["squeezenet"]))
    assert "squeezenet" not in assets.missing_extra()


# --- the command ------------------------------------------------------------------------------


def command() -> argparse.ArgumentParser:
    parser = cli.parser("training", "")
    assets.add_parser(parser.add_subparsers())
    return parser


def test_the_command_fetches_nothing_when_everything_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_default(folder)
    monkeypatch.setattr(assets, "fetch", lambda _: pytest.fail("nothing is missing"))
    assert cli.run(command(), ["assets"]) == 0
    assert str(folder) in capsys.readouterr().out


def test_the_extra_files_are_fetched_when_all_are_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []

    def fetch(requirements: Path) -> None:
        fetched.append(requirements.name)
        put(folder, *map(sample, assets.EXTRA_FILES.values()))

    put_default(folder)
    monkeypatch.setattr(assets, "fetch", fetch)
    assert cli.run(command(), ["assets", "--all"]) == 0
    assert cli.run(command(), ["assets", "--all"]) == 0
    assert fetched == ["assets-extra.txt"]
    assert "All assets are in" in capsys.readouterr().out


def put_default(folder: Path) -> None:
    put(folder, *map(sample, assets.FILES.values()))
    put(folder, *(sample(pattern) for each in assets.PHOTO_SETS.values() for pattern in each))


def test_the_command_fails_when_something_is_still_missing_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        assets, "fetch", lambda _: put(folder, sample(assets.FILES["mobilenet-v2"]))
    )
    assert cli.run(command(), ["assets"]) == 4
    told = capsys.readouterr().err
    assert "interiors" in told
    assert "mobilenet-v2" not in told


def test_the_last_line_of_a_failing_installer_is_repeated(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("--no-such-option\n")
    with pytest.raises(EnvironmentMissing, match=r"pip could not install .*no-such-option"):
        assets.fetch(wrong)


@pytest.mark.parametrize("requirements", [assets.REQUIREMENTS, assets.EXTRA_REQUIREMENTS])
def test_every_requirement_is_pinned_and_hashed(requirements: Path) -> None:
    lines = requirements.read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned
    for line in pinned:
        assert re.fullmatch(r"[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line)


# --- the real ones ----------------------------------------------------------------------------


def test_the_installed_photos_are_what_the_sets_promise(installed: Path) -> None:
    found = assets.photos()
    assert len(found) == len(set(found)) == PHOTOS
    for path in found:
        with Image.open(path) as picture:
            assert min(picture.size) >= 200, path.name
            picture.draft("RGB", (200, 200))  # decodes every byte, keeps few pixels
            picture.load()


def test_the_installed_photos_are_all_different(installed: Path) -> None:
    contents = [path.read_bytes() for path in assets.photos()]
    assert len(set(contents)) == PHOTOS


def test_the_installed_weights_are_the_official_ones(installed: Path) -> None:
    found = assets.find("mobilenet-v2")
    named = re.fullmatch(r"mobilenet_v2-([0-9a-f]{8})\.pth", found.name)
    assert named is not None
    assert hashlib.sha256(found.read_bytes()).hexdigest().startswith(named[1])
