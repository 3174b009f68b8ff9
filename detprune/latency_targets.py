"""The target of a latency budget: the machine and the runtime on which the network will run."""

import os
from dataclasses import dataclass, fields

from detprune.errors import InputError, unknown
from detprune.values import check_whole

RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "torch")
PRECISIONS = ("fp16", "fp32")


@dataclass(frozen=True)
class LatencyTarget:
    """Where a network will run, so that its time can be measured; or a table of times that was measured elsewhere.

    Attributes:
        device: ``cpu`` or ``cuda``.
        runtime: ``onnxruntime``, ``openvino``, ``tensorrt`` or ``torch``.
        threads: processor threads.
        size: side of square images in pixels; None: that of the training.
        batch: samples in one call.
        precision: ``fp32``, or ``fp16`` for torch on a GPU.
        table: a file that ``detprune profile`` wrote, filled in with the times of another device; nothing is
            measured then, and the other options are those of the table.
    """

    device: str = "cpu"
    runtime: str = "onnxruntime"
    threads: int = 1
    size: int | None = None
    batch: int = 1
    precision: str = "fp32"
    table: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"target: device is {self.device!r}; allowed is cpu or cuda")
        for name, allowed in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            if (value := getattr(self, name)) not in allowed:
                raise unknown(f"target.{name}", str(value), allowed)
        check_whole("target: threads", self.threads, "a whole number, 1 or more")
        check_whole("target: batch", self.batch, "a whole number, 1 or more")
        if self.size is not None:
            check_whole("target: size", self.size, "a whole number of pixels, 1 or more")
        if self.precision == "fp16" and not (self.runtime == "torch" and self._on_gpu):
            raise InputError(
                "target: precision fp16 is measured with runtime: torch and device: cuda only; for another device "
                "measure a table with it (detprune profile)"
            )
        if self.runtime == "openvino" and self._on_gpu:
            raise InputError("target: openvino is measured on device: cpu only")
        if self.runtime == "tensorrt" and not self._on_gpu:
            raise InputError("target: tensorrt runs on GPUs; give device: cuda")
        if self.table is not None:
            if not isinstance(self.table, str | os.PathLike):
                raise InputError(f"target: table is {self.table!r}; give the path of a file")
            object.__setattr__(self, "table", os.fspath(self.table))
            stated = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
            if stated != ["table"]:
                others = ", ".join(name for name in stated if name != "table")
                raise InputError(
                    f"target: table holds times that were measured elsewhere, and {others} would be measured here; "
                    "give one of them"
                )

    @property
    def _on_gpu(self) -> bool:
        return self.device != "cpu"

    def __str__(self) -> str:
        if self.table is not None:
            return f"the table {self.table}"
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if not self._on_gpu else "GPU"
        half = ", fp16" if self.precision == "fp16" else ""
        return f"{self.runtime}, {self.device}, {where}{half}"
