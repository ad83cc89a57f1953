"""The feature codec: a folder is checked, a picture becomes a stream, hostile streams an error."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.errors import EngineError, FeatureStreamError
from edge_sdk.featurecodec import Artefact, FeatureCodec, Wire, is_stream
from edge_sdk.featurecodec.artefact import FILES
from edge_sdk.featurecodec.bitstream import OVERHEAD, Stream
from model_store.errors import (
    CorruptAgent,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    UsageError,
)
from model_store.files import sha256_bytes

MakeCodec = Callable[..., dict[str, bytes]]

#: Hostile streams; the time of the test is theirs.
STREAMS = int(os.environ.get("ADACOMPRESS_FUZZ", "10000"))


def by_role(files: dict[str, bytes]) -> dict[str, bytes]:
    names = {name: role for role, name in FILES.items()}
    return {names[name]: data for name, data in files.items() if name in names}


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module", params=["factorised", "context"])
def codec(request: pytest.FixtureRequest, make_codec: MakeCodec) -> FeatureCodec:
    return FeatureCodec.open(by_role(make_codec(kind=request.param)))


def test_a_picture_arrives_as_the_integers_it_was_made(
    codec: FeatureCodec, photo: Image.Image
) -> None:
    integers = codec.integers(photo)
    assert (integers.shape, integers.dtype) == ((codec.rates, *codec.shape), np.int8)
    for rate in range(codec.rates):
        stream = codec.encode(integers, rate)

        assert is_stream(stream)
        found, received = codec.decode(stream)
        assert found == rate
        assert np.array_equal(received, integers[rate])


def test_finer_rates_tell_more(codec: FeatureCodec, photo: Image.Image) -> None:
    spread = [len(np.unique(each)) for each in codec.integers(photo)]
    assert spread == sorted(spread)
    assert spread[0] < spread[-1]


def test_the_sizes_are_those_of_the_streams(codec: FeatureCodec, photo: Image.Image) -> None:
    integers = codec.integers(photo)
    assert codec.sizes(integers) == [len(codec.encode(integers, r)) for r in range(codec.rates)]
    assert max(codec.sizes(integers)) <= codec.max_bytes


def test_the_header_is_that_of_the_format(codec: FeatureCodec, photo: Image.Image) -> None:
    stream = codec.encode(codec.integers(photo), 2)

    assert stream[:2] == bytes([0xAF, 1 << 5 | 2])
    assert stream[2:6] == bytes.fromhex(codec.id)[:4]
    assert stream[-4:] == zlib.crc32(stream[:-4]).to_bytes(4, "big")
    assert OVERHEAD == 10


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), spread=st.floats(0.1, 12.0), rate=st.integers(0, 2))
def test_any_integers_survive(codec: FeatureCodec, seed: int, spread: float, rate: int) -> None:
    values = np.random.default_rng(seed).normal(0, spread, (codec.rates, *codec.shape))
    integers = np.clip(np.round(values), -15, 15).astype(np.int8)

    stream = codec.encode(integers, rate)

    assert np.array_equal(codec.decode(stream)[1], integers[rate])
    assert len(stream) <= codec.max_bytes


def test_the_least_likely_integers_are_within_the_bound(make_codec: MakeCodec) -> None:
    files = by_role(make_codec())
    wire = Wire(Artefact.open(files))
    with np.load(io.BytesIO(files["codec-entropy"])) as arrays:
        rarest = arrays["counts"].argmin(2).astype(np.int8) - 15  # (R, C)
    integers = np.broadcast_to(rarest[:, :, None, None], (wire.rates, *wire.shape))
    assert max(wire.sizes(integers)) <= wire.max_bytes


def test_a_folder_opens_as_the_bytes_do(
    make_codec: MakeCodec, photo: Image.Image, tmp_path: Path
) -> None:
    files = make_codec()
    here, there = FeatureCodec.open(by_role(files)), FeatureCodec.open(written(files, tmp_path))
    assert (here.id, here.view) == (there.id, there.view)
    assert np.array_equal(here.integers(photo), there.integers(photo))


def hostile(codec: FeatureCodec, good: bytes, rng: np.random.Generator) -> bytes:
    """Return something that no device sends: cut, changed, noise, or noise with a right header."""
    data = bytearray(good)
    match rng.integers(6):
        case 0:
            return bytes(data[: rng.integers(len(data))])
        case 1:
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            return bytes(data)
        case 2:
            return rng.bytes(int(rng.integers(300)))
        case 3:
            return bytes(data + rng.bytes(int(rng.integers(1, 5000))))
        case 4:
            rate = int(rng.integers(32))
            return Stream(codec.id[:8], rate, rng.bytes(int(rng.integers(400)))).pack()
    body = bytearray(Stream(codec.id[:8], 0, rng.bytes(9)).pack()[:-4])
    body[rng.integers(6)] = rng.integers(256)
    return bytes(body) + zlib.crc32(body).to_bytes(4, "big")


def test_hostile_streams_are_an_error_or_some_integers(
    codec: FeatureCodec, photo: Image.Image
) -> None:
    rng, good = np.random.default_rng(0), codec.encode(codec.integers(photo), 1)
    outcomes = {"error": 0, "integers": 0}
    for _ in range(STREAMS // 2):  # for each of the two entropy models
        try:
            rate, integers = codec.decode(hostile(codec, good, rng))
        except FeatureStreamError:
            outcomes["error"] += 1
        else:
            assert 0 <= rate < codec.rates
            assert (integers.shape, integers.dtype) == (codec.shape, np.int8)
            assert np.abs(integers.astype(int)).max() <= 15
            outcomes["integers"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"\xaf" * 9, "9 bytes"),
        (b"\xff\xd8" + bytes(20), "no feature stream"),
        (b"\xaf" + bytes(20), "damaged"),
        (b"\xaf" + bytes(10**6), "1000001 bytes"),
    ],
)
def test_the_error_says_what_was_seen(codec: FeatureCodec, data: bytes, said: str) -> None:
    with pytest.raises(FeatureStreamError, match=said):
        codec.decode(data)


def test_another_codecs_or_versions_stream_is_refused(codec: FeatureCodec) -> None:
    with pytest.raises(FeatureStreamError, match="codec 01020304"):
        codec.decode(Stream("01020304", 0, b"").pack())
    with pytest.raises(FeatureStreamError, match="rate 9"):
        codec.decode(Stream(codec.id[:8], 9, b"").pack())
    body = bytes([0xAF, 7 << 5]) + bytes(8)
    with pytest.raises(FeatureStreamError, match="version 7"):
        codec.decode(body + zlib.crc32(body).to_bytes(4, "big"))


def test_no_integers_of_another_shape_or_rate_are_coded(
    codec: FeatureCodec, photo: Image.Image
) -> None:
    integers = codec.integers(photo)
    for wrong, rate in ((integers[0], 0), (integers[:2], 0), (integers, 3), (integers, -1)):
        with pytest.raises(UsageError):
            codec.encode(wrong, rate)
    with pytest.raises(UsageError, match="RGB"):
        codec.integers(photo.convert("L"))


def test_pixels_of_another_size_are_an_error(codec: FeatureCodec) -> None:
    with pytest.raises(EngineError, match="encoder failed"):
        codec.of_pixels(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"schema": "adacompress.codec/2"}, SchemaTooNew),
        ({"schema": "adacompress.agent/1"}, ManifestInvalid),
        ({"id": "../../etc"}, ManifestInvalid),
        ({"id": None}, ManifestInvalid),
        ({"id": "0" * 16}, CorruptAgent),
        ({"view": {"side": 32}}, ManifestInvalid),
        ({"view": {"side": 10**9, "resized": 10**9}}, ManifestInvalid),
        ({"view": {"side": 16, "resized": 36}}, EngineError),
        ({"view": {"side": 32, "resized": 36, "filter": "bicubic"}}, EngineError),
        ({"shape": [3, 4]}, ManifestInvalid),
        ({"shape": [3, 10**6, 10**6]}, ManifestInvalid),
        ({"shape": [3, 2, 8]}, EngineError),
        ({"shape": [4, 4, 4]}, EngineError),
        ({"limit": 14}, EngineError),
        ({"rates": 2}, EngineError),
        ({"rates": True}, ManifestInvalid),
        ({"entropy": "context"}, EngineError),
        ({"entropy": "adaptive"}, ManifestInvalid),
        ({"variants": ["int8"]}, None),
        ({"variants": {"int8": None}}, None),
        ({"later": {"field": 1}}, None),
    ],
)
def test_a_document_that_does_not_fit_is_refused(
    make_codec: MakeCodec, document: dict[str, Any], error: type[Exception] | None
) -> None:
    files = by_role(make_codec(document=document))
    if error is None:
        assert Artefact.open(files).document.items() >= document.items()
        return
    with pytest.raises(error):
        FeatureCodec.open(files)


def test_a_newer_minor_version_is_read(make_codec: MakeCodec) -> None:
    FeatureCodec.open(by_role(make_codec(document={"schema": "adacompress.codec/1.3"})))


@pytest.mark.parametrize("role", ["codec-json", "codec-encoder", "codec-entropy"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "noise"])
def test_damaged_files_are_refused(make_codec: MakeCodec, role: str, damage: str) -> None:
    files = by_role(make_codec())
    data = files.pop(role)
    if damage != "missing":
        middle = len(data) // 2
        files[role] = {
            "cut": data[:middle],
            "changed": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
            "noise": b"noise",
        }[damage]
    with pytest.raises((CorruptAgent, ManifestInvalid)):
        FeatureCodec.open(files)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"counts.npy": b""},
        {"counts.npy": b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u4', 'fortran_order': False, "
                       b"'shape': (1000000000, 1000000000)}".ljust(128) + b"\n"},
        {"counts.npy": b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, "
                       b"'shape': (1,)}".ljust(128) + b"\n"},
    ],
    ids=["nothing", "empty", "giant", "objects"],
)  # fmt: skip
def test_an_entropy_file_that_is_none_is_refused(
    make_codec: MakeCodec, content: dict[str, bytes]
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(EngineError, match="entropy model"):
        Artefact.open(_with(make_codec(), "entropy.npz", buffer.getvalue()))


def _with(files: dict[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    """Return a codec with another file, whose id fits."""
    both = {**files, name: data}
    document = json.loads(files["codec.json"])
    document["id"] = sha256_bytes(both["encoder.onnx"] + both["entropy.npz"])[:16]
    return by_role({**both, "codec.json": json.dumps(document).encode()})


def test_the_graph_is_looked_at_before_a_runtime_does(make_codec: MakeCodec) -> None:
    graph = onnx.load_model_from_string(make_codec()["encoder.onnx"])
    graph.graph.node.add(op_type="RandomNormal", output=["noise"])
    for data in (graph.SerializeToString(), b"no graph"):
        with pytest.raises(EngineError, match="The model"):
            FeatureCodec.open(_with(make_codec(), "encoder.onnx", data))


def test_an_encoder_of_another_view_is_refused(make_codec: MakeCodec) -> None:
    for metadata in ({"view": "{}"}, {"schema": "adacompress.engine/1"}, {"shape": "[3, 4]"}):
        with pytest.raises(EngineError, match="encoder says"):
            FeatureCodec.open(by_role(make_codec(metadata=metadata)))


def test_metadata_that_is_no_text_is_refused(make_codec: MakeCodec) -> None:
    encoder = make_codec()["encoder.onnx"].replace(b'"side"', b'"\xffide"')
    with pytest.raises(EngineError, match="no text"):
        FeatureCodec.open(_with(make_codec(), "encoder.onnx", encoder))


def test_the_int8_form_is_taken_if_it_is_the_one_that_passed(
    make_codec: MakeCodec, photo: Image.Image
) -> None:
    other = make_codec(gain=1.0)["encoder.onnx"]
    stated = {"variants": {"int8": {"sha256": sha256_bytes(other)}}}
    files = by_role({**make_codec(document=stated), "encoder-int8.onnx": other})

    quick, exact = FeatureCodec.open(files), FeatureCodec.open(files, int8=False)

    assert quick.id == exact.id
    assert np.abs(quick.integers(photo)).max() < np.abs(exact.integers(photo)).max()
    with pytest.raises(CorruptAgent, match="int8"):
        FeatureCodec.open(by_role({**make_codec(), "encoder-int8.onnx": other}))


def test_no_folder_and_a_folder_without_a_codec_are_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match=r"no codec\.json"):
            FeatureCodec.open(place)


def test_a_file_that_cannot_be_read_is_told(make_codec: MakeCodec, tmp_path: Path) -> None:
    folder = written(make_codec(), tmp_path)
    (folder / "entropy.npz").unlink()
    (folder / "entropy.npz").mkdir()
    with pytest.raises(EnvironmentMissing, match=r"entropy\.npz"):
        FeatureCodec.open(folder)
