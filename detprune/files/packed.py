"""Recognises files beside or around a checkpoint: archives, compressed files, what DVC, macOS and TensorBoard write."""

from pathlib import Path

from detprune.errors import InputError

_BEGINNINGS = {
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
}
_TAR, _TAR_AT = b"ustar", 257
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_EVENTS = b"brain.Event:"  # the version, in the first record of TensorBoard's events
_EVENTS_WITHIN = 64  # bytes
_PICKLE = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_TORCH = (0x1950A86A20F9469CFC6C).to_bytes(
    10, "little"
)  # first value of a file of torch.save before its zip format


def refuse_packed(path: Path) -> None:
    """Refuse a file that lies beside a checkpoint, or holds one without being one.

    Raises:
        InputError: an archive, a compressed file, or what DVC, macOS and TensorBoard write beside a checkpoint.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_TAR_AT + len(_TAR))
    packed = next((kind for start, kind in _BEGINNINGS.items() if head.startswith(start)), None)
    if head[_TAR_AT:] == _TAR:
        packed = "a tar archive"
    if packed is not None:
        raise InputError(
            f"{path} is {packed} and no checkpoint, whatever its name; unpack it and give the checkpoint in it"
        )
    if path.suffix == ".dvc":
        raise InputError(
            f"{path} is the text file that DVC writes beside a checkpoint; give {path.with_suffix('')}, which "
            "`dvc pull` fetches"
        )
    if head.startswith(_APPLE_DOUBLE):
        name = path.name.removeprefix("._")
        given = path.with_name(name) if name and name != path.name else "the file beside it"
        raise InputError(
            f"{path} holds what macOS knows of another file (AppleDouble) and no checkpoint; give {given}"
        )
    if _EVENTS in head[:_EVENTS_WITHIN]:
        raise InputError(
            f"{path} holds the curves of a training, as TensorBoard writes them, and no checkpoint; give a checkpoint "
            "of that training"
        )


def is_plain_pickle(head: bytes) -> bool:
    """True for the first bytes (at least 64) of a pickle that `torch.save` did not write."""
    return head.startswith(_PICKLE) and _TORCH not in head
