"""Tests of signatures, by a real ssh-keygen."""

import shutil
import stat
import subprocess

import pytest
from reports import record

from lit_xai.report.checking import check_folder, rebuild
from lit_xai.report.signing import check_key, sign, signers_of
from lit_xai.report.writing import MANIFEST, SIGNATURE, write

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH's ssh-keygen")


def key(folder, name, passphrase=""):
    """Return the file of a new key."""
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)]
    subprocess.run(made, check=True, timeout=30)
    return folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    one, other = key(folder, "ann"), key(folder, "bob")
    allowed = folder / "allowed"
    allowed.write_text(f"ann@example.org {one.with_suffix('.pub').read_text()}")
    return one, other, allowed


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "run"
    write(record(n=60, labels=False, explained=False, latency=False, costs=False), folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run")


@needs_ssh
def test_a_signature_fits_the_manifest_it_was_made_of_and_no_other(folder, keys):
    one, other, allowed = keys
    text, code = check_folder(folder, signers=allowed)
    assert (code, "nobody signed" in text) == (12, True)
    check_key(one)
    sign(folder, one)
    assert signers_of(folder, allowed) == ["ann@example.org"]
    text, code = check_folder(folder, signers=allowed)
    assert (code, "Signed by ann@example.org." in text) == (0, True)
    assert '"ann@example.org"' in check_folder(folder, "json", signers=allowed)[0]
    # The same report made anew is still signed; another's key and another's manifest are no signature.
    rebuild(folder)
    assert check_folder(folder, signers=allowed)[1] == 0
    sign(folder, other)
    assert check_folder(folder, signers=allowed)[1] == 12
    rebuild(folder, one)
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" ")
    assert signers_of(folder, allowed) == []


@needs_ssh
def test_a_signature_does_not_outlive_its_report(folder, keys):
    one = keys[0]
    sign(folder, one)
    write(record(n=50, labels=False, explained=False, latency=False, costs=False), folder)
    assert not (folder / SIGNATURE).exists()


@needs_ssh
def test_a_signature_for_something_else_does_not_fit(folder, keys):
    one, _, allowed = keys
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(one), "-n", "file", str(folder / MANIFEST)], check=True, timeout=30
    )
    assert (folder / SIGNATURE).exists()
    assert check_folder(folder, signers=allowed)[1] == 12


@needs_ssh
@pytest.mark.parametrize("damage", [b"", b"-----BEGIN SSH SIGNATURE-----\nrubbish\n", b"\x00" * 5000])
def test_a_damaged_signature_does_not_fit(folder, keys, damage):
    (folder / SIGNATURE).write_bytes(damage)
    assert check_folder(folder, signers=keys[2])[1] == 12


@needs_ssh
def test_a_key_that_cannot_sign_is_refused_before_any_work(folder, tmp_path):
    locked, rubbish = key(tmp_path, "locked", "secret"), tmp_path / "rubbish"
    rubbish.write_text("no key")
    rubbish.chmod(stat.S_IRUSR)
    for one in (locked, rubbish):
        with pytest.raises(ValueError, match=r"--sign expected a key that can sign, but ssh-keygen says [^\n]*\Z"):
            check_key(one)
        with pytest.raises(ValueError, match="expected a key that can sign"):
            rebuild(folder, one)
    assert not (folder / SIGNATURE).exists()


def test_what_is_missing_is_one_sentence(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--sign expected the file of a key, but there is no file"):
        check_key(tmp_path / "none")
    with pytest.raises(ValueError, match="--signers expected a file of allowed signers, but there is no file"):
        check_folder(folder, signers=tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "key").touch()
    with pytest.raises(ValueError, match="--sign expected OpenSSH's ssh-keygen"):
        check_key(tmp_path / "key")
    with pytest.raises(ValueError, match="--signers expected OpenSSH's ssh-keygen"):
        signers_of(folder, tmp_path / "key")
