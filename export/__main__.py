"""``python -m export``: publish a training run as an agent, build engines for this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store import Store
from model_store.cli import parser, print_json, run
from model_store.errors import EnvironmentMissing

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    commands = parser("export", "Fuse, prove and publish an agent; build engines on the device.")
    source = commands.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="a training run to publish")
    source.add_argument("--agent", metavar="ID", help="an agent of the store: id, prefix or alias")
    commands.add_argument("--store", type=Path, required=True, metavar="DIR", help="model store")
    commands.add_argument(
        "--onnx", action="store_true", help="publish the fused ONNX engine (always done)"
    )
    commands.add_argument(
        "--trt",
        nargs="?",
        const="require",
        choices=("auto", "require"),
        help="also build a TensorRT engine for this machine's GPU; without one, `require` (the "
        "default) ends with exit code 4 and `auto` with 0, the ONNX being published in both",
    )
    commands.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="point NAME to the agent"
    )
    commands.add_argument("--json", action="store_true", help="print one JSON object")
    commands.set_defaults(handler=_export)
    return commands


def _export(arguments: argparse.Namespace) -> int:
    store = Store(arguments.store)
    result = _publish(arguments, store)
    code = 0
    if arguments.trt:
        code = _build(arguments, store, result)
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


def _build(arguments: argparse.Namespace, store: Store, result: dict[str, Any]) -> int:
    from export import tensorrt

    agent = result["agent"]
    try:
        trt, gpu = tensorrt.requirements()
        model = store.load(agent).file("engine")
        path = tensorrt.build(model, arguments.store / "cache" / "tensorrt", trt=trt, gpu=gpu)
    except EnvironmentMissing as error:
        print(
            f"TensorRT engine not built: {error} The ONNX of {agent} is published; on the device "
            f"run `python -m export --trt --agent {agent} --store {arguments.store}`.",
            file=sys.stderr,
        )
        result["tensorrt"] = None
        return error.exit_code if arguments.trt == "require" else 0
    result["tensorrt"] = str(path)
    return 0


def _tell(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    if "parity" in result:
        parity = result["parity"]
        print(
            f"Parity: {parity['same_rung']:.1%} of {parity['pictures']} pictures get the same "
            f"rung, largest difference of a Q-value {parity['max_difference']:.2g}."
        )
    if result.get("tensorrt"):
        print(f"TensorRT engine: {result['tensorrt']}")
    print(f"Agent {result['agent']} is in {arguments.store}.")
    print(f"Next: python -m model_store show {result['agent']} --store {arguments.store}")


if __name__ == "__main__":
    sys.exit(main())
