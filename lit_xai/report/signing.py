"""Signatures of a report by OpenSSH: a detached one of the manifest, which holds the hash of every file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lit_xai.report.writing import MANIFEST, SIGNATURE

NAMESPACE = "lit-xai"
"""What a signature is for: one that was made for something else does not fit."""

SECONDS = 30
"""After which a key that nobody can unlock is given up."""


def check_key(key: str | Path) -> None:
    """Refuse a key that cannot sign, before any work is done for what is to be signed.

    Args:
        key: the file of a private key, or of a public one whose private one an agent holds.

    Raises:
        ValueError: there is no such file, no ``ssh-keygen``, or nobody who could type the passphrase; one sentence.
    """
    path = Path(key)
    if not path.is_file():
        raise ValueError(f"--sign expected the file of a key, but there is no file '{path}'.")
    _keygen("--sign")
    if not _has_terminal():  # where there is one, the passphrase is asked for once, when there is something to sign
        _signature(path, b"")


def sign(folder: Path, key: str | Path) -> Path:
    """Sign a report's manifest, such that :func:`signers_of` finds whose key it was.

    Args:
        folder: of the report.
        key: as for :func:`check_key`.

    Returns:
        The signature's file.

    Raises:
        OSError: the report has no manifest, or the signature cannot be written.
        ValueError: as for :func:`check_key`.
    """
    place = Path(folder) / SIGNATURE
    signature = _signature(Path(key), (Path(folder) / MANIFEST).read_bytes())
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        temporary.write_bytes(signature)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return place


def signers_of(folder: Path, allowed: str | Path) -> list[str]:
    """Return who of those who may sign has signed a report's manifest as it is now.

    Args:
        folder: of the report.
        allowed: a file of who may sign, in the format of ``ssh-keygen``'s ALLOWED SIGNERS.

    Raises:
        ValueError: there is no such file, or no ``ssh-keygen``; one sentence.
    """
    if not Path(allowed).is_file():
        raise ValueError(f"--signers expected a file of allowed signers, but there is no file '{allowed}'.")
    keygen, signature = _keygen("--signers"), str(Path(folder) / SIGNATURE)
    if not Path(signature).is_file():
        return []
    manifest = (Path(folder) / MANIFEST).read_bytes()
    found = _run([keygen, "-Y", "find-principals", "-s", signature, "-f", str(allowed)], b"")
    names = found.stdout.decode(errors="replace").splitlines() if found.returncode == 0 else []
    verify = [keygen, "-Y", "verify", "-f", str(allowed), "-n", NAMESPACE, "-s", signature, "-I"]
    return [name for name in names if _run([*verify, name], manifest).returncode == 0]


def _signature(key: Path, content: bytes) -> bytes:
    done = _run([_keygen("--sign"), "-Y", "sign", "-f", str(key), "-n", NAMESPACE], content, _has_terminal())
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        said = " ".join(done.stderr.decode(errors="replace").split())[:200].rstrip(".")
        hint = "" if _has_terminal() else "; a key with a passphrase takes a terminal, or ssh-agent and its public file"
        raise ValueError(f"--sign expected a key that can sign, but ssh-keygen says of '{key}': {said}{hint}.")
    return done.stdout


def _run(command: list[str], content: bytes, may_ask: bool = False) -> "subprocess.CompletedProcess[bytes]":
    """Run ``ssh-keygen``, which is cut off from the terminal and from windows unless it may ask for a passphrase."""
    environment = dict(os.environ) if may_ask else {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        return subprocess.run(
            command,
            input=content,
            capture_output=True,
            timeout=None if may_ask else SECONDS,
            env=environment,
            start_new_session=not may_ask,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"ssh-keygen expected to answer within {SECONDS} s, but did not: is the key unlocked?"
        ) from None
    except OSError as error:
        raise ValueError(f"ssh-keygen expected to run, but got {error.strerror}.") from None


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _keygen(option: str) -> str:
    found = shutil.which("ssh-keygen")
    if found is None:
        raise ValueError(f"{option} expected OpenSSH's ssh-keygen (8.2 or later) on the PATH, but there is none.")
    return found
