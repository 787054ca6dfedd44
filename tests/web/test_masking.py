"""No log of the web application holds the token of a callback's address."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from crm_sync.web.masking import masked
from tests.webhooks.servers import SERVERS, Installation, post, raw, served

TOKEN = "v1_0123456789abcdef_0123456789abcdef0123456789abcdef_1795833387_0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f'"POST /webhooks/apollo/{TOKEN} HTTP/1.1" 200', '"POST /webhooks/apollo/… HTTP/1.1" 200'),
        (f"GET /webhooks/apollo/{TOKEN}?a=b x", "GET /webhooks/apollo/… x"),
        (f"/webhooks/other/{TOKEN}", "/webhooks/apollo/…"),
        (f"//webhooks//{TOKEN}", "/webhooks/apollo/…"),
        (f"%2FWebHooks%2fapollo%2F{TOKEN}", "/webhooks/apollo/…"),
        ("/webhooks/apollo/anything at all", "/webhooks/apollo/… at all"),
        (f'"https://a.example/x?y={TOKEN}&z"', '"https://a.example/x?y=v1_…&z"'),
        ("GET /healthz, nothing to hide: v1_x", "GET /healthz, nothing to hide: v1_x"),
    ],
)
def test_a_path_and_a_token_are_masked(line: str, shown: str) -> None:
    assert masked(line) == shown


@pytest.mark.parametrize("server", SERVERS)
def test_no_log_holds_a_token(server: str, tmp_path: Path) -> None:
    """With all that can be switched on."""
    more = ("--access-logfile", "-", "--log-level", "debug") if server == "gunicorn" else ()
    with (
        Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db") as installation,
        served(server, tmp_path, more=more, settings={"LOG_LEVEL": "DEBUG"}) as made,
    ):
        token = installation.token()
        path = f"/webhooks/apollo/{token}"
        assert post(made.port, path, b"x") == 200
        post(made.port, f"/webhooks//{token}", b"x")
        post(made.port, path, b"x" * (300 << 10))
        raw(made.port, f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nx".encode(), timeout=0.5)
        raw(made.port, f"POST {path} HTTP/9.9\r\nHost: a\r\n\r\n".encode(), timeout=0.5)
        raw(made.port, f"POST {path} HTTP/1.1\r\nHo st: a\r\n\r\n".encode(), timeout=0.5)
        raw(made.port, f"{path} {path} {path}\r\n\r\n".encode(), timeout=0.5)
        with closing(HTTPConnection("127.0.0.1", made.port, timeout=10)) as connection:
            connection.request("GET", "/healthz", headers={"Referer": f"https://a.example{path}", "User-Agent": token})
            connection.getresponse().read()
        installation.app.store.path.rename(tmp_path / "gone")  # type: ignore[union-attr]
        assert post(made.port, path, b"y") == 503
        (tmp_path / "gone").rename(tmp_path / "crm_sync.db")

    log = made.log.read_text()
    assert token not in log
    assert token.split("_")[2] not in log
    if server == "gunicorn":
        assert "/webhooks/apollo/…" in log
    assert "a delivery was not taken" in log
