"""Run a command with the network cut and a name server that answers nothing, and tell which names it looked up.

    unshare -rmn python lookups.py RESULT COMMAND ...

RESULT is then a JSON file with the command's exit status, the names it looked up, and how often it sent something to an
address that it had without one. Everything happens in namespaces of its own: nothing of the machine is changed.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def loopback_up() -> None:
    """Switch on the only device of a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack("16sH14x", b"lo", 0)), 16)
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def name_of(packet: bytes) -> str:
    """Return the name that a DNS query asks for."""
    parts, at = [], 12
    while at < len(packet) and packet[at]:
        parts.append(packet[at + 1 : at + 1 + packet[at]].decode(errors="replace"))
        at += 1 + packet[at]
    return ".".join(parts)


def serve(server: socket.socket, names: list[str]) -> None:
    """Answer every query with: there is no such name."""
    while True:
        packet, sender = server.recvfrom(4096)
        names.append(name_of(packet))
        server.sendto(packet[:2] + b"\x81\x83" + packet[4:6] + bytes(6) + packet[12:], sender)


def without_route() -> int:
    """Return how many packets found no way out of this namespace."""
    names, values = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"])


def main(result: str, command: list[str]) -> None:
    """Run the command under the name server."""
    loopback_up()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
        settings.flush()
        subprocess.run(["mount", "--bind", settings.name, "/etc/resolv.conf"], check=True)
        names: list[str] = []
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=serve, args=(server, names), daemon=True).start()
        before = without_route()
        code = subprocess.run(command, check=False).returncode
        found = {"code": code, "names": names, "without_route": without_route() - before}
        Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
