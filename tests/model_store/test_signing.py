"""Who vouches for an agent, and what happens to those nobody vouches for."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from model_store import (
    CorruptAgent,
    Draft,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    Store,
    StoreReader,
    Untrusted,
    UsageError,
    signing,
)
from model_store.files import read_json, write_json

Publish = Callable[..., str]
Files = dict[str, tuple[str, bytes | Path]]

CARD: Files = {"card.md": ("card", b"card")}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys, and a file that trusts the first."""
    folder = tmp_path_factory.mktemp("keys")
    signing.make_key(folder / "fleet.pem")
    signing.make_key(folder / "stranger.pem")
    comment = "# whose agents are accepted\n\n"
    (folder / "trusted").write_text(comment + (folder / "fleet.pem.pub").read_text())
    return folder


@pytest.fixture
def trusting(store: Store, keys: Path) -> Store:
    return Store(store.root, trusted_keys=keys / "trusted")


def signature_of(store: Store, name: str) -> Path:
    return store.root / "agents" / name / "signature.json"


def test_a_pair_of_keys_is_made_once_and_the_secret_is_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "fleet.pem"
    public = signing.make_key(path)
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "fleet.pem.pub").read_text() == f"ed25519 {public} fleet\n"
    assert signing.Trust.load(tmp_path / "fleet.pem.pub").keys == {public}
    before = path.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        signing.make_key(path)
    assert path.read_bytes() == before
    with pytest.raises(EnvironmentMissing, match="cannot be written"):
        signing.make_key(tmp_path / "none" / "fleet.pem")


def test_it_is_plain_ed25519(store: Store, publish: Publish, keys: Path) -> None:
    name = publish("a")
    signature = store.sign(name, keys / "fleet.pem")
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
    content = {
        field: value
        for field, value in store.manifest(name).to_json().items()
        if field not in ("id", "created")
    }
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    message = b"adacompress.signature/1\n" + written.encode()
    key.verify(bytes.fromhex(signature.signature), message)


def test_what_a_trusted_key_signed_is_read(
    store: Store, trusting: Store, publish: Publish, keys: Path
) -> None:
    name = publish("a", "current")
    store.sign(name, keys / "stranger.pem")
    store.sign(name, keys / "fleet.pem")
    store.sign(name, keys / "fleet.pem")
    assert len(store.signatures(name)) == 2
    assert trusting.load("current").file("card") == b"the same in all"
    assert trusting.load_healthy()[0].id == name
    assert trusting.verify() == {name: ()}


def test_what_is_not_signed_is_refused_on_reading(
    store: Store, trusting: Store, publish: Publish
) -> None:
    name = publish("a", "current")
    for read in (trusting.load, trusting.manifest, trusting.promote):
        with pytest.raises(Untrusted, match="it is not signed"):
            read("current")
    with pytest.raises(CorruptAgent, match=r"No agent .* it is not signed"):
        trusting.load_healthy()
    assert [problem.kind for problem in trusting.verify()[name]] == ["untrusted"]
    assert StoreReader(store.root).verify() == {name: ()}


def test_an_untrusted_agent_is_passed_over_and_stays(
    store: Store, trusting: Store, publish: Publish, keys: Path
) -> None:
    first = publish("a", "current")
    store.sign(first, keys / "fleet.pem")
    second = publish("b", "current")
    agent, given_up = trusting.load_healthy()
    assert (agent.id, given_up) == (first, (second,))
    assert set(store.ids()) == {first, second}
    assert store.resolve("current") == second


def test_a_strangers_signature_is_none(
    store: Store, trusting: Store, publish: Publish, keys: Path
) -> None:
    name = publish("a")
    store.sign(name, keys / "stranger.pem")
    with pytest.raises(Untrusted, match=r"it is signed by [0-9a-f]{12}… alone"):
        trusting.load(name)


def test_a_signature_of_another_agent_is_none(
    store: Store, trusting: Store, publish: Publish, keys: Path
) -> None:
    good, evil = publish("a"), publish("b")
    store.sign(good, keys / "fleet.pem")
    signature_of(store, evil).write_bytes(signature_of(store, good).read_bytes())
    assert trusting.load(good)
    with pytest.raises(Untrusted, match="is of another content"):
        trusting.load(evil)


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"schema": "adacompress.signature/1"}',
        '{"schema": "adacompress.signature/9", "signatures": []}',
        '{"schema": "adacompress.signature/1", "signatures": [{"key": "x", "signature": "y"}]}',
    ],
)
def test_a_damaged_signature_is_none_and_signing_again_mends_it(
    store: Store, trusting: Store, publish: Publish, keys: Path, damage: str
) -> None:
    name = publish("a", "current")
    signature_of(store, name).write_text(damage)
    assert store.load(name)
    with pytest.raises(Untrusted):
        trusting.load(name)
    assert trusting.verify()[name][0].kind == "untrusted"
    if "/9" in damage:
        with pytest.raises(SchemaTooNew):
            store.sign(name, keys / "fleet.pem")
    else:
        store.sign(name, keys / "fleet.pem")
        assert trusting.load(name)


def test_a_key_that_is_no_point_of_the_curve_is_none(
    store: Store, publish: Publish, keys: Path, tmp_path: Path
) -> None:
    name = publish("a")
    bad = {"key": "f" * 64, "signature": "0" * 128}
    document = {"schema": signing.SCHEMA, "signatures": [bad]}
    write_json(signature_of(store, name), document)
    (tmp_path / "trusted").write_text(f"ed25519 {'f' * 64} odd\n")
    with pytest.raises(Untrusted):
        Store(store.root, trusted_keys=tmp_path / "trusted").load(name)


def test_a_store_signs_what_it_publishes(
    tmp_path: Path, make_draft: Callable[..., Draft], keys: Path
) -> None:
    root = tmp_path / "signing"
    unsigned = Store(root, trusted_keys=keys / "trusted")
    with pytest.raises(Untrusted, match="it is not signed"):
        unsigned.publish(make_draft(), CARD)
    stranger = Store(root, trusted_keys=keys / "trusted", signing_key=keys / "stranger.pem")
    with pytest.raises(Untrusted, match="alone"):
        stranger.publish(make_draft(), CARD)
    assert unsigned.ids() == ()
    signed = Store(root, trusted_keys=keys / "trusted", signing_key=keys / "fleet.pem")
    name = signed.publish(make_draft(), CARD, aliases=["current"]).id
    assert unsigned.load("current").id == name
    # Published again, by somebody else, it has both signatures.
    Store(root, signing_key=keys / "stranger.pem").publish(make_draft(), CARD)
    assert len(unsigned.signatures(name)) == 2
    assert unsigned.load("current").id == name


def test_signatures_travel_in_bundles_and_the_unsigned_are_refused(
    store: Store, publish: Publish, keys: Path, tmp_path: Path
) -> None:
    name = publish("a")
    store.pack(name, tmp_path / "unsigned.zip")
    store.sign(name, keys / "fleet.pem")
    store.pack(name, tmp_path / "signed.zip")
    device = Store(tmp_path / "device", trusted_keys=keys / "trusted")
    with pytest.raises(Untrusted):
        device.unpack(tmp_path / "unsigned.zip")
    assert not device.root.exists()
    assert device.unpack(tmp_path / "signed.zip").id == name
    assert device.load(name)
    plain = Store(tmp_path / "plain")
    plain.unpack(tmp_path / "unsigned.zip")
    plain.unpack(tmp_path / "signed.zip")  # brings the signature along
    assert Store(plain.root, trusted_keys=keys / "trusted").load(name)


@pytest.mark.parametrize("text", ["", "# nothing\n", "ed25519 abc\n", "rsa 00\n", "\x00"])
def test_a_file_of_trusted_keys_with_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "trusted").write_text(text)
    with pytest.raises(UsageError, match="trusted keys"):
        Store(tmp_path, trusted_keys=tmp_path / "trusted")
    with pytest.raises(UsageError, match="cannot be read"):
        Store(tmp_path, trusted_keys=tmp_path / "none")


def test_what_is_no_private_key_is_refused(store: Store, publish: Publish, tmp_path: Path) -> None:
    name = publish("a")
    (tmp_path / "text.pem").write_text("no key")
    other = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "other.pem").write_bytes(other)
    for file, said in (("text.pem", "cannot be read"), ("other.pem", "no Ed25519 key")):
        with pytest.raises(UsageError, match=said):
            store.sign(name, tmp_path / file)
    assert store.signatures(name) == ()


def test_without_the_package_it_says_what_to_install(
    store: Store, publish: Publish, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = publish("a")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(EnvironmentMissing, match=r"adacompress\[signing\]"):
        store.sign(name, keys / "fleet.pem")


def test_more_signatures_than_are_checked_are_cut(store: Store, publish: Publish) -> None:
    many = [signing.Signature(f"{number:064x}", "0" * 128) for number in range(99)]
    document = signing.to_json(many)
    assert len(document["signatures"]) == signing.MAX_SIGNATURES
    name = publish("a")
    write_json(signature_of(store, name), document)
    assert len(store.signatures(name)) == signing.MAX_SIGNATURES
    with pytest.raises(ManifestInvalid):
        signing.from_json(read_json(signature_of(store, name)) | {"signatures": 3})
