"""Files at addresses such as s3://bucket/in/a.png: any that fsspec knows, as paths that work like those of a disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError

# What filesystems say about a file that changes with its content, the surest first: hashes, then times.
SIGNS = (
    "ETag",
    "md5Hash",
    "etag",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "modified",
    "updated",
    "created",
)


def is_address(text: Any) -> bool:
    """Whether a text or a path is an address and no path on this machine's disks."""
    return not isinstance(text, Path) and "://" in str(text)


def locate(text: str) -> Any:
    """The path of a file or folder: of an address one of `upath`, else one of this machine.

    Raises:
        OmniAlphaError: nothing here can reach such an address; the message names the package to install.
    """
    if not is_address(text):
        return Path(text).expanduser()
    try:
        from upath import UPath
    except ImportError:
        raise OmniAlphaError(f"{text} needs more packages: pip install -r requirements-ray.txt") from None
    try:
        path = UPath(text)
        path.fs  # noqa: B018 - made on first use, which is when a missing package shows
    except ImportError as error:
        raise OmniAlphaError(f"{text} cannot be reached: {error}.") from error
    except ValueError as error:
        from fsspec import available_protocols

        known = ", ".join(sorted(available_protocols()))
        raise OmniAlphaError(f"{text} cannot be reached ({error}). Known are {known}.") from error
    except Exception as error:  # every filesystem has its own: no credentials, no such host
        raise OmniAlphaError(f"{text} cannot be reached: {_words(error)}") from error
    return path


def fingerprint(path) -> str:
    """What tells a version of a remote file from others, in hexadecimal, from its listing and not its content.

    Raises:
        OSError: it is not there.
    """
    info = path.fs.info(path.path)
    sign = next((info[name] for name in SIGNS if info.get(name)), None)
    content = path.read_bytes() if sign is None else f"{info['size']} {sign}".encode()
    return hashlib.sha256(content).hexdigest()


def put(content: bytes, path) -> bool:
    """Write a remote file that is not there yet. False where the name is taken.

    Object stores that can refuse to overwrite (S3, Google's) are asked to, so that two writers cannot meet; on others
    this looks first. What a run stopped while writing left, a beginning of this very content, is written anew.

    Raises:
        OSError: the filesystem refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.fs.pipe_file(path.path, content, mode="create")
        return True
    except FileExistsError:
        if path.is_dir() or path.stat().st_size >= len(content) or not content.startswith(path.read_bytes()):
            return False
        path.fs.pipe_file(path.path, content)
        return True
    except OSError:
        raise
    except Exception as error:  # some filesystems raise their own client's errors
        raise OSError(_words(error)) from error


def matches(pattern: str, endings: set[str]) -> tuple[list, Any]:
    """The files that match an address with wildcards, or a folder's of these endings; and the fixed part before.

    Raises:
        OmniAlphaError: see `locate`.
    """
    import glob

    fixed, rest = pattern, ""
    if glob.has_magic(pattern):
        parts = pattern.split("/")
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        fixed, rest = "/".join(parts[:first]), "/".join(parts[first:])
    root = locate(fixed)
    try:
        found = root.glob(rest) if rest else (path for path in root.iterdir() if path.suffix.lower() in endings)
        return list(found), root
    except Exception as error:
        raise OmniAlphaError(f"{fixed} cannot be listed: {_words(error)}") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
