# SPDX-License-Identifier: AGPL-3.0-or-later
"""The formats of Ultralytics' exporter, and what each needs here."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

import torch
from ultralytics.engine import exporter

from detprune.errors import InputError

_PACKAGES = MappingProxyType(
    {
        "onnx": ("onnx", "onnxslim", "onnxruntime"),
        "openvino": ("openvino",),
        "engine": ("tensorrt",),
        "coreml": ("coremltools",),
        "saved_model": ("tensorflow",),
        "pb": ("tensorflow",),
        "edgetpu": ("tensorflow",),
        "litert": ("litert_torch",),
        "mnn": ("MNN",),
        "ncnn": ("ncnn", "pnnx"),
        "paddle": ("paddle", "x2paddle"),
        "executorch": ("executorch",),
    }
)
_INT8_PACKAGES = MappingProxyType({"openvino": ("nncf",)})
_INSTALLED_AS = MappingProxyType({"paddle": "paddlepaddle", "litert_torch": "litert-torch"})


@dataclass(frozen=True)
class Format:
    """A format of Ultralytics' exporter.

    Attributes:
        name: value of Ultralytics' ``format``.
        title: name for people.
        suffix: end of the name of the file or folder, by which Ultralytics recognises it.
        on_cpu: whether the processor can export it.
        float32: whether it can hold float32; some accelerators take integers only.
        int8: whether it can hold int8, calibrated on images.
    """

    name: str
    title: str
    suffix: str
    on_cpu: bool
    float32: bool
    int8: bool

    @property
    def is_folder(self) -> bool:
        """Whether the export is a folder."""
        return self.suffix.endswith("_model")

    def file_name(self, stem: str, int8: bool) -> str:
        """Name of the export of a network."""
        return f"{stem}{'_int8' if int8 else ''}{self.suffix}"

    def check(self, int8: bool) -> None:
        """Refuse a precision, a machine or an installation with which the format cannot be exported.

        Raises:
            InputError: with the way out.
        """
        if int8 and not self.int8:
            raise InputError(
                f"{self.title} is not exported in int8; formats with int8: {', '.join(sorted(int8_formats()))}"
            )
        if not int8 and not self.float32:
            raise InputError(f"{self.title} holds no float32; add --int8")
        if not self.on_cpu and not torch.cuda.is_available():
            raise InputError(
                f"{self.title} is exported on the device that runs it, and PyTorch finds no CUDA GPU here; run the "
                "same command there, on a copy of the run's folder"
            )
        needed = _PACKAGES.get(self.name, ()) + (_INT8_PACKAGES.get(self.name, ()) if int8 else ())
        if missing := [package for package in needed if find_spec(package) is None]:
            raise InputError(
                f"export to {self.title} needs {', '.join(missing)}, not installed here; install with: "
                f"pip install {' '.join(_INSTALLED_AS.get(package, package) for package in missing)}"
            )


def formats() -> Mapping[str, Format]:
    """Name → format, of all that the installed Ultralytics exports."""
    table = exporter.export_formats()
    rows = zip(table["Argument"], table["Format"], table["Suffix"], table["CPU"], strict=True)
    return {
        name: Format(
            name,
            title,
            suffix,
            on_cpu,
            name not in exporter.FP32_UNSUPPORTED_FORMATS,
            name in exporter.INT8_FORMATS,
        )
        for name, title, suffix, on_cpu in rows
        if name != "-"  # PyTorch itself
    }


def int8_formats() -> list[str]:
    """Names of the formats that can hold int8."""
    return [name for name, found in formats().items() if found.int8]
