"""``python -m export --codec DIR``: both halves of a feature codec, and what servers make of it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.codec_archive import CodecFiles, codec_archive
from model_store.cli import print_json
from model_store.errors import EnvironmentMissing, GateFailed, UsageError
from model_store.files import write_atomic

__all__ = ["export_codec"]

#: Options that only an agent has.
_AGENTS = ("store", "alias", "trt", "card", "bench")

_SCHEMA = "adacompress.codec-export/1"


def export_codec(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for, and return its exit code.

    Raises:
        UsageError: an option is an agent's, nothing was asked for, or the folder is no codec.
        StoreError: a file of the codec is damaged or breaks its contract.
        EnvironmentMissing: the output cannot be written.
    """
    _check(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("export").setLevel(logging.INFO)
    codec = CodecFiles.open(arguments.codec, arguments.classifier)
    result: dict[str, Any] = {"codec": codec.artefact.id, "model": f"{codec.name}/{codec.version}"}
    code = 0
    if arguments.int8:
        codec, code = _quantized(arguments, codec, result)
    try:
        result["files"] = [str(path) for path in _written(arguments, codec)]
    except OSError as error:
        raise EnvironmentMissing(
            f"The folder {arguments.out} cannot be written ({error}); name another with --out."
        ) from error
    if arguments.json:
        print_json({"schema": _SCHEMA, "ok": code == 0, **result})
    else:
        _tell(arguments, codec, result)
    return code


def _check(arguments: argparse.Namespace) -> None:
    given = [name for name in _AGENTS if getattr(arguments, name) not in (None, False, [])]
    if given:
        listed = ", ".join(f"--{name}" for name in given)
        raise UsageError(f"{listed}: for agents only; a --codec takes no such option.")
    if not (arguments.onnx or arguments.int8 or arguments.mar or arguments.triton):
        raise UsageError("What is to be made of the codec? Add --onnx, --int8, --mar or --triton.")
    if arguments.int8 and arguments.calibration is None:
        raise UsageError("--int8 of a codec needs photos to prove it on: add --calibration DIR.")


def _quantized(
    arguments: argparse.Namespace, codec: CodecFiles, result: dict[str, Any]
) -> tuple[CodecFiles, int]:
    from edge_sdk.folder import find_pictures
    from edge_sdk.reading import load
    from export.codec_int8 import MAX_PHOTOS, with_int8

    found = find_pictures(arguments.calibration)
    chosen = found[:: max(1, -(-len(found) // MAX_PHOTOS))]
    view = codec.artefact.view
    try:
        made = with_int8(codec, [view.pixels(load(path).image) for path in chosen], tell=_say)
    except GateFailed as error:
        _say(str(error))
        result["int8"] = None
        return codec, error.exit_code
    result["int8"] = made.facts
    return made.codec, 0


def _written(arguments: argparse.Namespace, codec: CodecFiles) -> list[Path]:
    out, written = arguments.out, []
    if arguments.onnx or arguments.int8:
        written += _folder(out / "device", codec.device())
        written += _folder(out / "server", codec.server())
    if arguments.mar:
        write_atomic(out / f"{codec.name}.mar", codec_archive(codec))
        written.append(out / f"{codec.name}.mar")
    if arguments.triton:
        from export.triton import write_codec

        written += write_codec(codec, out / "triton")
    return written


def _folder(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _tell(arguments: argparse.Namespace, codec: CodecFiles, result: Mapping[str, Any]) -> None:
    if int8 := result.get("int8"):
        print(
            f"INT8: {len(int8['quantized'])} of {int8['convolutions']} convolutions, "
            f"{int8['size'] / 1000:.0f} KB instead of {int8['size_fp32'] / 1000:.0f}, "
            f"{int8['times_faster']:.2f} times as fast; {int8['agreement']:.1%} of "
            f"{int8['answers']} answers agree with fp32's."
        )
    for path in result["files"]:
        print(f"Written: {path}")
    if arguments.mar:
        name = codec.name
        print(
            f"Next: torchserve --start --ncs --model-store {arguments.out} --models "
            f"{name}={name}.mar"
        )
        print(f"Then: --backend torchserve+http://HOST:8080/{name}/{codec.version}")
        if "classifier.onnx" not in codec.files:
            print("It reads streams only; with --classifier FILE it would answer pictures too.")
