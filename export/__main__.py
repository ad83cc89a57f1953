"""``python -m export``: publish a training run, make what deployment needs of an agent.

Every step says what it made; a gate that refuses a variant stops that variant alone, and the exit
code tells.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store import Store, StoredAgent
from model_store.cli import parser, print_json, run
from model_store.errors import EnvironmentMissing, GateFailed, UsageError
from model_store.files import write_atomic

__all__ = ["main"]

#: Calibration pictures that are used of a folder, evenly spread over it.
MAX_CALIBRATION = 200

#: Photos of a folder that are timed, evenly spread over it.
MAX_TIMED = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    commands = parser("export", "Fuse, prove and publish an agent; make of it what devices need.")
    source = commands.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="a training run to publish")
    source.add_argument("--agent", metavar="ID", help="an agent of the store: id, prefix or alias")
    source.add_argument(
        "--codec",
        type=Path,
        metavar="DIR",
        help="a feature codec's folder; takes --onnx, --int8, --mar and --triton, and no store",
    )
    commands.add_argument("--store", type=Path, metavar="DIR", help="model store of the agent")
    commands.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="point NAME to the agent"
    )
    variants = commands.add_argument_group("variants of the engine, each behind the parity gate")
    variants.add_argument(
        "--onnx", action="store_true", help="the fused fp32 ONNX engine (always done)"
    )
    variants.add_argument(
        "--int8",
        action="store_true",
        help="an INT8 engine for CPUs, as a new version of the agent; blocks that change decisions "
        "stay fp32, and where too few are left it is refused with exit code 3",
    )
    variants.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="photos to calibrate INT8 with; default is the agent's own probe set, which is then "
        "no independent proof (a codec has none: it needs photos)",
    )
    variants.add_argument(
        "--trt",
        nargs="?",
        const="require",
        choices=("auto", "require"),
        help="TensorRT engines for this machine's GPU; without one, `require` (the default) ends "
        "with exit code 4 and `auto` with 0, the ONNX being published in both",
    )
    packages = commands.add_argument_group("packages, written to --out")
    packages.add_argument("--mar", action="store_true", help="a TorchServe archive")
    packages.add_argument("--triton", action="store_true", help="a Triton model repository")
    packages.add_argument(
        "--classifier",
        type=Path,
        metavar="FILE",
        help="the whole classifier of a --codec, if it is not in its folder: the archive then "
        "answers pictures too",
    )
    packages.add_argument("--card", action="store_true", help="a model card")
    packages.add_argument(
        "--out", type=Path, default=Path("exported"), metavar="DIR", help="default %(default)s"
    )
    commands.add_argument(
        "--bench",
        nargs="?",
        const="",
        metavar="DIR",
        help="time the ONNX variants on this machine, on photos of DIR or on the probe set",
    )
    commands.add_argument("--json", action="store_true", help="print one JSON object")
    commands.set_defaults(handler=_export)
    return commands


def _export(arguments: argparse.Namespace) -> int:
    if arguments.calibration and not arguments.int8:
        raise UsageError("--calibration is for --int8; give both.")
    if arguments.codec is not None:
        from export.codec_command import export_codec

        return export_codec(arguments)
    if arguments.store is None or arguments.classifier is not None:
        raise UsageError("--run and --agent need --store DIR, and --classifier is for --codec.")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("export").setLevel(logging.INFO)  # a build tells its progress there
    store = Store(arguments.store)
    result = _publish(arguments, store)
    codes = []
    if arguments.int8:
        codes.append(_quantize(arguments, store, result))
    if arguments.trt:
        codes.append(_build(arguments, store, result))
    stored = store.load(result["agent"])
    result["files"] = [str(path) for path in _packages(arguments, stored)]
    if arguments.bench is not None:
        result["bench"] = _bench(arguments, stored)
    code = next(filter(None, codes), 0)
    if arguments.json:
        print_json({"schema": "adacompress.export/1", "ok": code == 0, **result})
    else:
        _tell(result, arguments)
    return code


def _publish(arguments: argparse.Namespace, store: Store) -> dict[str, Any]:
    if arguments.agent:
        agent = store.resolve(arguments.agent)
        for alias in arguments.alias:
            store.promote(agent, alias, reason="export")
        return {"agent": agent}
    from export.publish import publish_run  # torch and onnx: not on a device that only builds
    from export.run import TrainingRun

    manifest, parity = publish_run(TrainingRun.load(arguments.run), store, aliases=arguments.alias)
    return {"agent": manifest.id, "parity": parity.as_dict()}


def _quantize(arguments: argparse.Namespace, store: Store, result: dict[str, Any]) -> int:
    from export.variants import publish_int8

    aliases = [*arguments.alias]
    if arguments.agent in store.aliases():
        aliases.append(arguments.agent)  # whoever follows the alias gets the new version
    try:
        made = publish_int8(
            store,
            result["agent"],
            _calibration(arguments, store, result["agent"]),
            aliases=aliases,
            tell=_say,
        )
    except GateFailed as error:
        _say(str(error))
        result["int8"] = None
        return error.exit_code
    result |= {"agent": made.manifest.id, "int8": made.as_dict()}
    return 0


def _calibration(arguments: argparse.Namespace, store: Store, agent: str) -> Any:
    if arguments.calibration is None:
        return None
    import numpy as np

    from edge_sdk.engine import OnnxEngine
    from edge_sdk.preprocess import to_input

    side = OnnxEngine(store.load(agent).file("engine")).side
    photos = _photos(arguments.calibration, MAX_CALIBRATION)
    return np.concatenate([to_input(photo, side) for photo in photos])


def _photos(folder: Path, most: int) -> list[Any]:
    from edge_sdk.folder import find_pictures
    from edge_sdk.reading import load

    found = find_pictures(folder)
    chosen = found[:: max(1, -(-len(found) // most))]
    return [load(path).image for path in chosen]


def _build(arguments: argparse.Namespace, store: Store, result: dict[str, Any]) -> int:
    from export import tensorrt

    agent = result["agent"]
    result["tensorrt"] = None
    try:
        trt, gpu = tensorrt.requirements()
        cache = arguments.store / "cache" / "tensorrt"
        paths, parity = tensorrt.build_engines(store.load(agent), cache, trt=trt, gpu=gpu)
    except EnvironmentMissing as error:
        _say(
            f"TensorRT engine not built: {error} The ONNX of {agent} is published; on the device "
            f"run `python -m export --trt --agent {agent} --store {arguments.store}`."
        )
        return error.exit_code if arguments.trt == "require" else 0
    except GateFailed as error:
        _say(f"TensorRT engine refused: {error}")
        return error.exit_code
    result["tensorrt"] = {"engines": [str(path) for path in paths], "parity": parity.as_dict()}
    return 0


def _packages(arguments: argparse.Namespace, stored: StoredAgent) -> list[Path]:
    if not (arguments.mar or arguments.triton or arguments.card):
        return []
    from export.torchserve import archive, model_name

    out, name, written = arguments.out, model_name(stored), []
    try:
        if arguments.mar:
            write_atomic(out / f"{name}.mar", archive(stored))
            written.append(out / f"{name}.mar")
        if arguments.triton:
            from export.triton import write_repository

            written += write_repository(stored, out / "triton", name)
        if arguments.card:
            from export.card import card

            write_atomic(out / "MODEL_CARD.md", card(stored.manifest).encode())
            written.append(out / "MODEL_CARD.md")
    except OSError as error:
        raise EnvironmentMissing(
            f"The folder {out} cannot be written ({error}); name another with --out."
        ) from error
    return written


def _bench(arguments: argparse.Namespace, stored: StoredAgent) -> list[dict[str, Any]]:
    from PIL import Image

    from export.bench import bench, table
    from export.gate import fp32_agent, probe_set
    from export.variants import engines

    if arguments.bench:
        photos = _photos(Path(arguments.bench), MAX_TIMED)
    else:
        photos = [Image.fromarray(one) for one in probe_set(stored)[:MAX_TIMED]]
    rows = bench(fp32_agent(stored), engines(stored), photos)
    if not arguments.json:
        print(table(rows))
    return [row.as_dict() for row in rows]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _tell(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    if "parity" in result:
        parity = result["parity"]
        print(
            f"Parity: {parity['same_rung']:.1%} of {parity['pictures']} pictures get the same "
            f"rung, largest difference of a Q-value {parity['max_difference']:.2g}."
        )
    if int8 := result.get("int8"):
        parity, of = int8["parity"], len(int8["blocks"]) + len(int8["kept_fp32"])
        print(
            f"INT8: {len(int8['blocks'])} of {of} blocks, {int8['size'] / 1000:.0f} KB instead of "
            f"{int8['size_fp32'] / 1000:.0f}, decides {int8['times_faster']:.2f} times as fast, "
            f"{int8['decisions_changed']} of {parity['pictures']} decisions changed."
        )
    if result.get("tensorrt"):
        for path in result["tensorrt"]["engines"]:
            print(f"TensorRT engine: {path}")
    for path in result["files"]:
        print(f"Written: {path}")
    print(f"Agent {result['agent']} is in {arguments.store}.")
    print(f"Next: python -m model_store show {result['agent']} --store {arguments.store}")


if __name__ == "__main__":
    sys.exit(main())
