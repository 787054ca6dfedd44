"""The recipes for nginx and Caddy, where these are installed: valid, and in front of the application what they promise."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.webhooks.servers import ROOT, Installation, Served, free_port, served

NAME = "crm-sync.example.com"
CADDY_BUFFER = re.compile(r"request_buffers .*")


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "fullchain.pem", folder / "privkey.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    cert, key = certificate(folder)
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};").replace(
        "listen 443", f"listen 127.0.0.1:{port}"
    )
    text = text.replace("/etc/ssl/crm-sync/fullchain.pem", str(cert)).replace("/etc/ssl/crm-sync/privkey.pem", str(key))
    text = text.replace("/var/log/nginx", str(folder)).replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    (folder / "site.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/main.log crit;\n"
        f"events {{}}\nhttp {{\n{temporary}include {folder}/site.conf;\n}}\n"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "main.log")]


def caddy(folder: Path, port: int, upstream: int) -> list[str]:
    cert, key = certificate(folder)
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    site = f"\n{{$SITE:{NAME}}} {{"
    assert site in text
    text = text.replace(site, f"\nhttps://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}")
    text = text.replace("/var/log/caddy", str(folder)).replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    text = text.replace("{\n\tauto_https", f"{{\n\tadmin off\n\thttp_port {free_port()}\n\tauto_https", 1)
    version = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True).stdout
    if re.match(r"v?2\.([0-5]\.|6\.[0-2]\b)", version):  # Debian 12 has 2.6.2
        text = CADDY_BUFFER.sub("buffer_requests", text)
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


KINDS = {"nginx": nginx, "caddy": caddy}
CHECKS = {"nginx": lambda command: [*command, "-t"], "caddy": lambda command: ["caddy", "validate", *command[2:]]}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param.upper()} IS NOT INSTALLED: its recipe in deploy/ was not tried")
    return str(request.param)


@contextmanager
def proxied(kind: str, folder: Path, upstream: int) -> Iterator[int]:
    port = free_port()
    command = KINDS[kind](folder, port, upstream)
    with (folder / "proxy.out").open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=out, env={"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(folder)}
        )
    try:
        _wait_for(port, child, folder / "proxy.out")
        yield port
    finally:
        child.terminate()
        child.wait(20)


def _wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def behind(kind: str, tmp_path: Path) -> Iterator[tuple[int, Served, Installation]]:
    with (
        Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db") as installation,
        served("gunicorn", tmp_path, more=("--access-logfile", "-")) as server,
        proxied(kind, tmp_path, server.port) as port,
    ):
        yield port, server, installation


def ask(folder: Path, port: int, method: str, path: str, **more: Any) -> tuple[int, str]:
    """Over TLS under the recipe's name, which no name server knows."""
    with urllib3.HTTPSConnectionPool(
        "127.0.0.1",
        port,
        server_hostname=NAME,
        assert_hostname=NAME,
        ca_certs=str(folder / "fullchain.pem"),
        timeout=20,
    ) as pool:
        answer = pool.request(method, path, headers={"Host": f"{NAME}:{port}"}, retries=False, redirect=False, **more)
        return answer.status, answer.headers.get("Server", "")


def tls(folder: Path, port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname=NAME)


def test_the_recipe_is_valid(kind: str, tmp_path: Path) -> None:
    command = CHECKS[kind](KINDS[kind](tmp_path, free_port(), 8080))

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "[warn]" not in checked.stderr


def test_deliveries_come_through_and_nothing_else(
    behind: tuple[int, Served, Installation], tmp_path: Path, kind: str
) -> None:
    port, _, installation = behind
    address = installation.address()

    def status(method: str, path: str, **more: Any) -> int:
        return ask(tmp_path, port, method, path, **more)[0]

    delivered = status("POST", address, body=b"through")
    in_chunks = status("POST", address, body=iter([b"in ", b"chunks"]), chunked=True)
    others = [
        status("GET", address),
        status("PUT", address, body=b"x"),
        status("POST", "/healthz", body=b"x"),
        status("GET", "/healthz"),
        status("GET", "/"),
        status("POST", "/webhooks/hubspot/x", body=b"x"),
        status("POST", f"{address}0", body=b"x"),
    ]
    large = status("POST", address, body=b"x" * ((256 << 10) + 1))
    with tls(tmp_path, port) as larger:  # refused before it is sent
        larger.sendall(f"POST {address} HTTP/1.1\r\nHost: {NAME}:{port}\r\nContent-Length: 5000000\r\n\r\n".encode())
        refused = larger.recv(100)

    assert (delivered, in_chunks, large, refused[:12]) == (200, 200, 413, b"HTTP/1.1 413")
    assert set(others) == {404}
    assert installation.kept() == {b"through": 1, b"in chunks": 1}


def test_no_log_holds_a_token(behind: tuple[int, Served, Installation], tmp_path: Path, kind: str) -> None:
    port, server, installation = behind
    token = installation.token()
    ask(tmp_path, port, "POST", f"/webhooks/apollo/{token}", body=b"x")
    ask(tmp_path, port, "GET", f"/webhooks//apollo/{token}")
    ask(tmp_path, port, "POST", f"/webhooks/apollo/{token}", body=b"x" * (300 << 10))
    server.kill()  # what a proxy says of a server that is not there
    assert ask(tmp_path, port, "POST", f"/webhooks/apollo/{token}", body=b"x")[0] == 502

    logs = {
        path.name: path.read_text(errors="replace") for path in tmp_path.iterdir() if path.suffix in (".log", ".out")
    }

    assert "/webhooks/apollo/..." in logs["crm-sync.log"]
    assert [name for name, text in logs.items() if token in text or token.split("_")[2] in text] == []


def test_a_slow_body_waits_at_the_proxy(behind: tuple[int, Served, Installation], tmp_path: Path, kind: str) -> None:
    """32 of them would occupy all threads of gunicorn."""
    port, server, installation = behind
    head = f"POST {installation.address()} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000\r\n\r\nx".encode()
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(tls(tmp_path, port)).sendall(head)

        answered = server.is_alive(timeout=2)

    assert answered
