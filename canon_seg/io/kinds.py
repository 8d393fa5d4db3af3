"""Say what a file is that is not what it should be: its first bytes tell."""

from pathlib import Path

from canon_seg.io.files import AnyPath

_FETCH = "get the file again"


def describe_contents(path: AnyPath) -> tuple[str, str] | None:
    """Describe what a file holds, by its first bytes, for messages about wrong files.

    Args:
        path: of a file.

    Returns:
        (noun, advice), such as ("a web page (HTML)", "..."), or None where it is nothing known.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(512)
    except OSError:
        return None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "empty (0 bytes)", _FETCH
    if start.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, which names the file and does not hold it",
            "run git lfs pull in its repository",
        )
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            "a web page (HTML)",
            "servers send one in place of a file that is not there or needs a login: open its "
            "address in a browser",
        )
    if text.startswith(b"<?xml"):
        return "an XML text, in which servers tell errors", "read it, and " + _FETCH
    for magic, name in (
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"\x89HDF", "an HDF5 file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a RAR archive"),
        (b"%PDF", "a PDF document"),
    ):
        if start.startswith(magic):
            return name, "unpack it" if "archive" in name else "give another file"
    if start[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < Path(path).stat().st_size:
        return "a safetensors file", "save its tensors by torch.save, and give that file"
    if text.startswith((b"{", b"[")):
        return "a JSON text", "give another file"
    return None
