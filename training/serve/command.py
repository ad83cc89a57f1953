"""``python -m training serve``: retrain agents for a fleet of devices until told to stop.

Prints one JSON line when it is ready. It stops on Ctrl-C, on SIGTERM, and when the pipe on its
standard input closes; jobs under way run again at the next start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
from functools import partial
from pathlib import Path

from edge_sdk.fleet import TOKEN
from edge_sdk.retrain import ChildProcessRetrainer
from model_store.errors import EnvironmentMissing, UsageError
from training.parent import when_parent_ends

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training serve``."""
    parser = commands.add_parser(
        "serve",
        help="retrain agents for a fleet of devices, over HTTP",
        epilog=f"The devices' token is read from {TOKEN}. Put TLS in front for other machines.",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="the agents")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="the queue (STORE-fleet)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--workers", type=int, default=1, help="jobs done at once (%(default)s)")
    parser.add_argument("--deadline", type=float, default=3600.0, metavar="S", help="of one job")
    parser.add_argument("--max-memory", type=int, metavar="MIB", help="of one job")
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    token = os.environ.get(TOKEN, "")
    if len(token) < 16:
        raise UsageError(
            f"The token in {TOKEN} has {len(token)} characters; allowed are 16 or more, the same "
            "on every device."
        )
    if arguments.workers < 1:
        raise UsageError(f"--workers is {arguments.workers}; allowed is 1 or more.")
    try:
        import uvicorn

        from training.serve.service import service
    except ImportError as error:
        raise EnvironmentMissing(
            f"The service needs {error.name}: pip install 'adacompress[server]'."
        ) from error
    from model_store import Store
    from training.serve.jobs import Jobs
    from training.serve.worker import Workers

    folder = arguments.folder or arguments.store.with_name(f"{arguments.store.name}-fleet")
    make = partial(
        ChildProcessRetrainer,
        deadline_s=arguments.deadline,
        max_memory_mib=arguments.max_memory,
    )
    jobs = Jobs(folder / "jobs")
    workers = Workers(jobs, arguments.store, count=arguments.workers, retrainer=make)
    app = service(jobs, workers, Store(arguments.store), folder / "incoming", token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with contextlib.closing(_listening(arguments.host, arguments.port)) as listener:
        address = f"http://{arguments.host}:{listener.getsockname()[1]}"
        when_parent_ends(lambda: setattr(server, "should_exit", True))
        workers.start()
        try:
            print(json.dumps({"url": address, "store": str(arguments.store)}), flush=True)
            server.run(sockets=[listener])
        finally:
            workers.stop()
            jobs.close()
    return 0


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise EnvironmentMissing(
            f"The address {host}:{port} cannot be listened on: {error.strerror or error}."
        ) from error
