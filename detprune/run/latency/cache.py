"""Times of single layers that were measured before, in the user's cache folder, by hardware and versions."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from detprune.channels.layer_kinds import LayerKind
from detprune.errors import InputError
from detprune.files import read_json
from detprune.files.atomic import atomic
from detprune.files.folders import user_cache
from detprune.loggers import logger

LOGGER = logger(__name__)

_DIGITS = 16
_LIMIT = 64 << 20  # bytes: some 300,000 times


class Cache:
    """Milliseconds of layers, kept in one file for each combination of hardware and versions.

    A file that cannot be read or written is as good as none: the layers are measured again.

    Args:
        environment: what the times depend on besides the layer.
        folder: where the file is.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self._environment = dict(environment)
        digest = hashlib.sha256(json.dumps(self._environment, sort_keys=True).encode()).hexdigest()
        self.file = (folder or user_cache() / "latency") / f"{digest[:_DIGITS]}.json"
        self._times: dict[str, float] = {}
        if not os.path.lexists(self.file):
            return
        try:
            found = read_json(self.file, "it is measured again", limit=_LIMIT)["times"]
            self._times = {str(k): float(v) for k, v in found.items() if 0 < float(v) < 1e9}
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            LOGGER.debug("%s is not used: %s", self.file, error)

    def get(self, kind: LayerKind, inputs: int, outputs: int) -> float | None:
        """Milliseconds of a layer; None if it was not measured."""
        return self._times.get(_key(kind, inputs, outputs))

    def put(self, kind: LayerKind, inputs: int, outputs: int, ms: float) -> None:
        """Note a time; ``save`` writes it."""
        self._times[_key(kind, inputs, outputs)] = ms

    def save(self) -> None:
        """Write the file."""
        content = {"environment": self._environment, "times": self._times}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic(self.file) as temporary:
                temporary.write_text(json.dumps(content), encoding="utf-8")
        except (OSError, InputError) as error:  # InputError: a folder or a pipe is there
            LOGGER.debug("%s is not written: %s", self.file, error)


def _key(kind: LayerKind, inputs: int, outputs: int) -> str:
    return f"{json.dumps(kind.as_dict(), sort_keys=True)} {inputs} {outputs}"
