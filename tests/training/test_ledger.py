"""The ledger keeps what was paid for: against a model, through kills, threads and old files."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from edge_sdk.backends.base import Label, Recognition
from edge_sdk.ladder import FULL, PAPER, REFERENCE, Rung
from model_store.errors import EnvironmentMissing, SchemaTooNew, UsageError
from training.labels.ledger import Key, Ledger, picture_key

ROOT = Path(__file__).parents[2]
ANSWER = Recognition((Label("cat", 0.75), Label("dog", 0.25)), wire_bytes=1000, request_id="7")
KEY = Key("baidu://host", "a" * 64, REFERENCE)

labels = st.lists(
    st.builds(Label, st.text(min_size=1, max_size=8), st.floats(0.0, 1.0)), max_size=5
).map(tuple)
keys = st.builds(
    Key,
    st.sampled_from(["baidu://host", "local/lite0@1", "local/lite0@2"]),
    st.sampled_from(["a" * 64, "b" * 64]),
    st.sampled_from([REFERENCE, *PAPER[:3], *FULL[:3]]),
)


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of answers, questions and restarts behaves as a dictionary."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "run" / "ledger.sqlite"
        self.ledger = Ledger(self.path)
        self.model: dict[tuple[str, ...], tuple[Label, ...]] = {}

    @rule(key=keys, found=labels)
    def put(self, key: Key, found: tuple[Label, ...]) -> None:
        self.ledger.put(key, Recognition(found, wire_bytes=1))
        self.model[key.row] = found

    @rule(key=keys)
    def get(self, key: Key) -> None:
        assert self.ledger.get(key) == self.model.get(key.row)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path)

    @invariant()
    def the_count_is_right(self) -> None:
        assert len(self.ledger) == len(self.model)

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestLedgerAgainstModel = LedgerMachine.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


def test_labels_come_back_as_they_were_bought(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY, ANSWER)

    assert ledger.get(KEY) == ANSWER.labels
    assert isinstance((ledger.get(KEY) or ())[0], Label)
    ledger.close()
    ledger.close()


def test_no_label_is_an_answer_and_not_a_gap(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY, Recognition((), wire_bytes=1))

    assert ledger.get(KEY) == ()
    assert ledger.get(KEY._replace(picture="b" * 64)) is None
    ledger.close()


def test_entropy_coding_does_not_change_the_answer_and_pixels_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY._replace(rung=Rung(quality=75, entropy="plain")), ANSWER)

    assert ledger.get(KEY._replace(rung=Rung(quality=75, entropy="progressive"))) is not None
    for other in (Rung(quality=74), Rung(quality=75, scale=0.5), Rung(75, subsampling="4:4:4")):
        assert ledger.get(KEY._replace(rung=other)) is None
    ledger.close()


def test_a_picture_is_its_pixels_and_its_size() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    one = picture_key(Image.fromarray(pixels))

    assert one == picture_key(Image.fromarray(pixels.copy()))
    assert one != picture_key(Image.fromarray(pixels.reshape(4, 2, 3)))
    pixels[0, 0, 0] += 1
    assert one != picture_key(Image.fromarray(pixels))


def test_answers_survive_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edge_sdk.backends.base import Label, Recognition\n"
        "from edge_sdk.ladder import REFERENCE\n"
        "from training.labels.ledger import Key, Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    key = Key('s', str(number), REFERENCE)\n"
        "    ledger.put(key, Recognition((Label('cat', 0.5),), 1))\n"
        "    print(number, flush=True)\n"
    )
    path = tmp_path / "ledger.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(50)]
        child.kill()
        said += [int(line) for line in child.stdout.read().split()]

    ledger = Ledger(path)
    assert all(ledger.get(Key("s", str(n), REFERENCE)) == (Label("cat", 0.5),) for n in said)
    ledger.put(KEY, ANSWER)  # and the file can still be written
    ledger.close()


def test_threads_and_a_second_process_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first, second = Ledger(path), Ledger(path)

    def put(number: int) -> None:
        ledger = first if number % 2 else second
        ledger.put(KEY._replace(picture=str(number)), ANSWER)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(40)))

    assert len(first) == len(second) == 40
    first.close()
    second.close()


def test_it_says_when_an_answer_was_bought(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, clock=lambda: 1234.5)
    ledger.put(KEY, ANSWER)
    ledger.close()

    connection = sqlite3.connect(path)
    row = connection.execute("SELECT bought, wire_bytes, request_id FROM answers").fetchone()
    connection.close()
    assert row == (1234.5, 1000, "7")


def test_a_ledger_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()

    with pytest.raises(SchemaTooNew, match="version 99"):
        Ledger(path)


def test_another_kind_of_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("notes, not a database\n" * 100)

    with pytest.raises(UsageError, match="is not a ledger"):
        Ledger(path)
    assert path.read_text().startswith("notes")


def test_a_place_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentMissing, match="cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(EnvironmentMissing, match="cannot be opened"):
        Ledger(tmp_path)


def test_a_full_disk_is_an_environment_error_and_loses_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY, ANSWER)
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Recognition(tuple(Label("x" * 1000, 0.5) for _ in range(100)), wire_bytes=1)

    with pytest.raises(EnvironmentMissing, match=r"cannot be written: .*full"):
        ledger.put(KEY._replace(picture="b" * 64), large)

    assert ledger.get(KEY) == ANSWER.labels
    ledger.close()
