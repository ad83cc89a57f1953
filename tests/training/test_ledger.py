"""The ledger keeps what was paid for: against a model, through kills, threads and old files."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from edge_sdk.backends.base import Box, Label, Recognition
from edge_sdk.ladder import FULL, PAPER, REFERENCE, Rung
from model_store.errors import EnvironmentMissing, SchemaTooNew, UsageError
from training.labels.ledger import Key, Ledger, picture_key

ROOT = Path(__file__).parents[2]
ANSWER = Recognition((Label("cat", 0.75), Label("dog", 0.25)), wire_bytes=1000, request_id="7")
KEY = Key("baidu://host", "a" * 64, REFERENCE)

sides = st.floats(0.0, 4096.0)
labels = st.lists(
    st.builds(
        Label,
        st.text(min_size=1, max_size=8),
        st.floats(0.0, 1.0),
        st.none() | st.builds(Box, sides, sides, sides, sides),
    ),
    max_size=5,
).map(tuple)
keys = st.builds(
    Key,
    st.sampled_from(["baidu://host", "baidu"]),
    st.sampled_from(["a" * 64, "b" * 64]),
    st.sampled_from([REFERENCE, *PAPER[:3], *FULL[:3]]),
    st.sampled_from(["", "lite0@1", "lite0@2"]),
)
prices = st.none() | st.floats(0.0, 1.0)


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of answers, questions, prunings and restarts behaves as a dictionary."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "run" / "ledger.sqlite"
        self.now = 1000.0
        self.ledger = self.opened()
        self.model: dict[tuple[str, ...], tuple[tuple[Label, ...], float | None, float]] = {}

    def opened(self) -> Ledger:
        return Ledger(self.path, clock=lambda: self.now)

    @rule(key=keys, found=labels, price=prices)
    def put(self, key: Key, found: tuple[Label, ...], price: float | None) -> None:
        self.ledger.put(key, Recognition(found, wire_bytes=1), price)
        self.model.pop(key.row, None)  # the last one bought comes last
        self.model[key.row] = (found, price, self.now)

    @rule(key=keys)
    def get(self, key: Key) -> None:
        known = self.model.get(key.row)
        assert self.ledger.get(key) == (known[0] if known else None)

    @rule(several=st.lists(keys, max_size=4))
    def get_many(self, several: list[Key]) -> None:
        known = [self.model.get(key.row) for key in several]
        assert self.ledger.get_many(several) == [one[0] if one else None for one in known]

    @rule(seconds=st.floats(-5.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds  # clocks are set back, too

    @rule(age=st.floats(0.0, 200.0), service=st.sampled_from([None, "baidu", "nobody"]))
    def prune(self, age: float, service: str | None) -> None:
        old = {
            row
            for row, (_, _, bought) in self.model.items()
            if bought < self.now - age and service in (None, row[0])
        }
        assert self.ledger.prune(age, service, dry_run=True) == len(old)
        assert self.ledger.prune(age, service) == len(old)
        for row in old:
            del self.model[row]

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.opened()

    @invariant()
    def the_count_is_right(self) -> None:
        assert len(self.ledger) == len(self.model)

    @invariant()
    def the_entries_come_in_the_order_of_buying(self) -> None:
        entries = list(self.ledger.entries())
        assert [(one.labels, one.price_usd, one.bought) for one in entries] == list(
            self.model.values()
        )

    @invariant()
    def the_newest_model_is_known(self) -> None:
        of_baidu = [row[1] for row in self.model if row[0] == "baidu"]
        newest = of_baidu[-1] if of_baidu else None
        assert self.ledger.latest_version("baidu") == (newest or None)

    @invariant()
    def the_money_adds_up(self) -> None:
        known = [price for _, price, _ in self.model.values() if price is not None]
        for rows in (self.ledger.holdings(), self.ledger.bills()):
            assert sum(row.cost_usd for row in rows) == pytest.approx(sum(known))
            assert sum(row.answers for row in rows) == len(self.model)
            assert sum(row.unpriced for row in rows) == len(self.model) - len(known)

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


def test_many_look_ups_are_each_what_one_would_be(tmp_path: Path) -> None:
    now = [1000.0]
    with closing(Ledger(tmp_path / "ledger.sqlite", clock=lambda: now[0], ttl_s=50.0)) as ledger:
        keys = [
            Key("s", f"{n:03}", rung, m) for n in range(90) for rung in PAPER[:3] for m in ("", "1")
        ]
        for place, key in enumerate(keys):
            now[0] = 1000.0 + place
            if place % 3:
                ledger.put(key, Recognition((Label(str(place), 0.5),) * (place % 4), wire_bytes=1))
        asked = [*reversed(keys), keys[7], *keys]  # some statements' worth, not in any order
        found = ledger.get_many(asked)
        assert found == [ledger.get(key) for key in asked]
        old = round(now[0] - 50.0 - 1000.0)  # older ones are too old
        fresh = [place % 3 > 0 and place >= old for place in range(len(keys))]
        assert [labels is not None for labels in found[-len(keys) :]] == fresh
        assert ledger.get_many([]) == []


def test_many_look_ups_see_what_others_buy_meanwhile_or_not_but_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    keys = [Key("s", str(number), REFERENCE) for number in range(600)]
    with closing(Ledger(path)) as ours, closing(Ledger(path)) as theirs:

        def buy() -> None:
            for number, key in enumerate(keys):
                theirs.put(key, Recognition((Label(str(number), 0.5),), wire_bytes=1))

        with ThreadPoolExecutor(1) as pool:
            buying, before = pool.submit(buy), -1
            while before < len(keys):
                found = ours.get_many(keys)
                known = [labels is not None for labels in found]
                assert all(one in (None, (Label(str(n), 0.5),)) for n, one in enumerate(found))
                assert sum(known) >= before
                before = sum(known)
            buying.result()


def test_entropy_coding_does_not_change_the_answer_and_pixels_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY._replace(rung=Rung(quality=75, entropy="plain")), ANSWER)

    assert ledger.get(KEY._replace(rung=Rung(quality=75, entropy="progressive"))) is not None
    for other in (Rung(quality=74), Rung(quality=75, scale=0.5), Rung(75, subsampling="4:4:4")):
        assert ledger.get(KEY._replace(rung=other)) is None
    ledger.close()


def test_tables_make_another_answer_and_rungs_without_keep_their_key(tmp_path: Path) -> None:
    flat, steep = (Rung(75, tables=((step,) * 64, (step,) * 64)) for step in (16, 17))
    assert KEY.row[3] == '[75, 1.0, "4:2:0"]'
    assert KEY._replace(rung=flat).row[3] == '[75, 1.0, "4:2:0", "' + str(flat.pixels[-1]) + '"]'
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.put(KEY._replace(rung=flat), ANSWER)
        assert ledger.get(KEY) is None
        assert ledger.get(KEY._replace(rung=steep)) is None
        assert ledger.get(KEY._replace(rung=flat)) == ANSWER.labels
        assert [Rung(**entry.rung) for entry in ledger.entries()] == [flat]


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


def test_an_upload_with_boxes_is_kept_with_its_size(tmp_path: Path) -> None:
    boxed = Recognition(
        (Label("cat", 0.5, Box(1.5, 2, 30, 40)), Label("dog", 0.25)), 10, size=(64, 48)
    )
    ledger = Ledger(tmp_path / "ledger.sqlite", clock=lambda: 7.0)
    ledger.put(KEY, boxed, price_usd=0.001)
    ledger.put(KEY._replace(picture="b" * 64), Recognition((Label("cat", 0.5),), 10, size=(64, 48)))

    first, second = ledger.entries()
    assert (first.labels, first.size) == (boxed.labels, (64, 48))
    assert (first.rung, first.price_usd, first.bought) == (REFERENCE.as_dict(), 0.001, 7.0)
    assert ledger.get(KEY) == boxed.labels
    assert second.size is None  # nothing refers to it
    ledger.close()


def test_answers_of_two_models_are_two_answers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KEY._replace(model="3.0"), ANSWER)

    assert ledger.get(KEY._replace(model="3.1")) is None
    assert ledger.get(KEY) is None
    assert ledger.latest_version(KEY.service) == "3.0"
    assert ledger.latest_version("another") is None
    ledger.close()


def test_many_entries_come_page_by_page(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number in range(2001):
        ledger.put(KEY._replace(picture=str(number)), Recognition((), 1))

    assert [one.picture for one in ledger.entries()] == [str(number) for number in range(2001)]
    ledger.close()


# --- answers that grow old ----------------------------------------------------------------------


def test_answers_that_are_too_old_are_not_used_and_go_when_it_is_opened(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.sqlite", [0.0]
    ledger = Ledger(path, clock=lambda: now[0], ttl_s=100.0)
    ledger.put(KEY, ANSWER)
    now[0] = 100.0
    assert ledger.get(KEY) is not None
    now[0] = 100.5
    assert ledger.get(KEY) is None  # it grew old during the run
    ledger.put(KEY, ANSWER)
    assert ledger.get(KEY) is not None  # bought anew
    ledger.put(KEY._replace(picture="b" * 64), ANSWER)
    ledger.close()

    with closing(Ledger(path, clock=lambda: 150.0)) as opened:
        assert len(opened) == 2
    with closing(Ledger(path, clock=lambda: 300.0, ttl_s=100.0)) as opened:
        assert len(opened) == 0


def test_what_is_pruned_is_gone_from_the_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", clock=lambda: 10.0)
    for number in range(300):
        secret = Recognition((Label(f"SECRET-{number}", 0.5),), 1, request_id="SECRET")
        ledger.put(KEY._replace(picture=f"SECRET-{number}"), secret)
    ledger.put(KEY._replace(service="kept"), ANSWER)
    assert b"SECRET" in on_disk(tmp_path)

    assert ledger.prune(-1.0, KEY.service) == 300

    assert b"SECRET" not in on_disk(tmp_path)  # while it is still open
    assert b"kept" in on_disk(tmp_path)
    ledger.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_pruning_fails_loudly_while_another_process_reads(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", clock=lambda: 10.0)
    ledger.put(KEY, ANSWER)
    ledger._connection.execute("PRAGMA busy_timeout = 1")
    reader = sqlite3.connect(ledger.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM answers").fetchall()

    with pytest.raises(EnvironmentMissing, match="end what else uses it"):
        ledger.prune(-1.0)

    reader.close()
    ledger.close()


# --- files of other versions and kinds ----------------------------------------------------------

VERSION_1 = """
CREATE TABLE answers (
    service TEXT NOT NULL, picture TEXT NOT NULL, pixels TEXT NOT NULL,
    labels TEXT NOT NULL, wire_bytes INTEGER NOT NULL, request_id TEXT NOT NULL,
    bought REAL NOT NULL, PRIMARY KEY (service, picture, pixels)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def version_1(path: Path, pixels: str = '[75, 1.0, "4:2:0"]') -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    for service, bought in (("baidu://host", 5.0), ("baidu/lite0@2", 4.0), ("baidu/lite0@1", 3.0)):
        values = (service, "a" * 64, pixels, '[["cat", 0.75], ["dog", 0.25]]', 1000, "7", bought)
        connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    connection.commit()
    connection.close()
    return path


def test_a_ledger_of_version_1_keeps_its_answers(tmp_path: Path) -> None:
    path = version_1(tmp_path / "ledger.sqlite")
    for _ in range(2):
        with closing(Ledger(path)) as ledger:
            for key in (KEY, Key("baidu", "a" * 64, REFERENCE, "lite0@1")):
                assert ledger.get(key) == ANSWER.labels
            assert ledger.latest_version("baidu") == "lite0@2"
            oldest = next(ledger.entries())
            assert (oldest.model, oldest.bought, oldest.price_usd) == ("lite0@1", 3.0, None)
            assert oldest.rung == {"quality": 75, "scale": 1.0, "subsampling": "4:2:0"}


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = version_1(tmp_path / "ledger.sqlite", pixels="nonsense")

    with pytest.raises(EnvironmentMissing, match="cannot be opened"):
        Ledger(path)

    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (3,)
    assert connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (1,)
    connection.close()


def test_several_may_open_a_ledger_of_version_1_at_once(tmp_path: Path) -> None:
    path = version_1(tmp_path / "ledger.sqlite")
    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(lambda _: Ledger(path), range(4)))

    assert [len(ledger) for ledger in ledgers] == [3] * 4
    for ledger in ledgers:
        ledger.close()


def test_the_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(UsageError, match=r"is not a ledger .*songs"):
        Ledger(path)

    assert path.read_bytes() == before


def test_a_damaged_ledger_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        for number in range(100):
            ledger.put(KEY._replace(picture=str(number)), ANSWER)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)

    with closing(Ledger(path)) as ledger, pytest.raises(UsageError, match="damaged"):
        list(ledger.entries())


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

    with pytest.raises(EnvironmentMissing, match=r"cannot be read or written: .*full"):
        ledger.put(KEY._replace(picture="b" * 64), large)

    assert ledger.get(KEY) == ANSWER.labels
    ledger.close()
