"""Where torch and the features' runtime compute, and with how many threads.

Not here: what devices compute. Features in whole numbers always come from the CPU, so that heads
learn from, and certificates hold for, what an edge device will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from model_store.errors import EnvironmentMissing, UsageError

__all__ = ["CPU", "CUDA_PROVIDER", "DEVICES", "device_of", "mixed", "one_thread", "provider_of"]

#: What ``--device`` may be.
DEVICES = ("auto", "cpu", "cuda")

CPU = torch.device("cpu")

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the GPU where torch finds one.

    Raises:
        EnvironmentMissing: ``cuda`` is asked for, and torch finds none.
        UsageError: the name is another one.
    """
    if name not in DEVICES:
        raise UsageError(f"The device {name!r} is unknown; allowed are {', '.join(DEVICES)}.")
    if name == "cpu":
        return CPU
    if torch.cuda.is_available():
        return torch.device("cuda")
    if name == "auto":
        return CPU
    reason = "was built without CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
    raise EnvironmentMissing(
        f"--device cuda: torch {torch.__version__} {reason}. Install a build of torch for this "
        "GPU's driver, or take --device cpu, or auto, which takes what is there."
    )


def provider_of(name: str, precision: str) -> str:
    """Return ONNX Runtime's provider for features of a precision on the device of a name.

    Whole numbers are the CPU's, whatever is asked for: that is where devices compute them.

    Raises:
        EnvironmentMissing: ``cuda`` is asked for, and torch or ONNX Runtime has none.
        UsageError: there is no such device.
    """
    if device_of(name) == CPU or precision != "fp32":
        return CPU_PROVIDER
    import onnxruntime

    if CUDA_PROVIDER in onnxruntime.get_available_providers():
        return CUDA_PROVIDER
    if name == "auto":
        return CPU_PROVIDER
    raise EnvironmentMissing(
        f"--device cuda: ONNX Runtime {onnxruntime.__version__}, which computes the features, has "
        "no CUDA. Install onnxruntime-gpu in place of onnxruntime, or take --device cpu or auto."
    )


def mixed(device: torch.device) -> AbstractContextManager[object]:
    """Let a block compute in bfloat16 on a GPU; on a CPU it computes as it would anyway."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, in a ``with`` block or a decorated function.

    For matrices as small as ours a pool costs more than it gives: its threads wait for each other
    by spinning, and where other work leaves fewer cores than they count, four fifths of the time is
    that.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
