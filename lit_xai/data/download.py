"""Download of one file, complete and unaltered or not at all."""

import os
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

_CHUNK = 1 << 16
_TIMEOUT = 30  # seconds without a byte


def download(url: str, path: Path, checksum: str) -> None:
    """Download a file with a progress bar; it appears under its name only when complete and with the right checksum.

    Args:
        url: its address.
        path: its destination; missing folders are created.
        checksum: its SHA-256, as hexadecimal digits.

    Raises:
        OSError: it cannot be downloaded completely, or cannot be written.
        ValueError: the downloaded file has another checksum.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     source, path = Path(folder, "source"), Path(folder, "copy")
        ...     _ = source.write_bytes(b"digits")
        ...     download(source.as_uri(), path, sha256(b"digits").hexdigest())
        ...     path.read_bytes()
        b'digits'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: moving is one step only within a file system.
        with TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            part = Path(folder, path.name)
            received = _copy(url, part)
            # Checked before the file appears under its name, which later runs trust.
            if received != checksum:
                raise ValueError(
                    f"{url} was refused and removed: its SHA-256 expected {checksum}, but got {received}:"
                    " try again or set url to another address."
                )
            os.replace(part, path)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # an HTTPError is also the response, with an open connection
        raise OSError(
            f"{url} could not be downloaded to '{path}' ({error}): try again, set url to another address, or put the"
            " file there yourself."
        ) from None


def _copy(url: str, path: Path) -> str:
    """Copy the content of an address to a file and return its SHA-256."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types

    digest, done = sha256(), 0
    with urlopen(url, timeout=_TIMEOUT) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        with tqdm(desc=path.name, total=total or None, unit="B", unit_scale=True, unit_divisor=1024) as bar:
            while chunk := response.read(_CHUNK):
                done += file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    if done < total:  # urllib does not complain about a connection that ends early
        raise OSError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()
