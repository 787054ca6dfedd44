"""The one kind of session: bounded in time and size, no redirects, errors that say what may have happened."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from adapters import http
from adapters.http import (
    BoundedSession,
    LostAnswerError,
    OversizedError,
    UnsentError,
    check_url,
    parse_json,
    parse_object,
    retry,
    retry_after_s,
)
from crm_sync.errors import ConfigError, ContractError, RateLimitError, TransientError
from tests.adapters.scripted_server import answer, hang_up, scripted_server
from tests.clocks import FakeClock


def a_session(url: str, **settings: object) -> BoundedSession:
    return BoundedSession(provider="apollo", base_url=url, **{"read_s": 5.0, **settings})  # type: ignore[arg-type]


# --- addresses


@pytest.mark.parametrize(
    "url", ["https://api.apollo.io/api/v1", "http://127.0.0.1:8080", "http://localhost:1/x", "http://[::1]:9"]
)
def test_https_and_loopback_are_accepted(url: str) -> None:
    assert check_url(url + "/", "CRM_SYNC_APOLLO_URL") == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://api.apollo.io", "https://"),
        ("http://127.0.0.1.evil.example", "https://"),
        ("ftp://api.apollo.io", "https address"),
        ("api.apollo.io", "https address"),
        ("https://", "https address"),
        ("https://user:hunter2@api.apollo.io", "password"),
        ("https://api.apollo.io/?api_key=hunter2", "follows the ?"),
        ("https://api.apollo.io:port", "not an address"),
    ],
)
def test_an_unfit_address_is_refused_by_the_settings_name_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_url(url, "CRM_SYNC_APOLLO_URL")

    assert "CRM_SYNC_APOLLO_URL" in str(refused.value)
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_proxy_of_the_environment_is_taken_once_and_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "internal.example")

    assert http.environment_proxies("https://api.apollo.io")["https"] == "http://127.0.0.1:3128"
    assert http.environment_proxies("https://internal.example") == {}
    assert http.environment_proxies("http://127.0.0.1:80") == {}
    with scripted_server(answer(b"{}")) as server:
        assert a_session(server.url).get("/x").json() == {}


def test_a_proxy_is_used_for_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(answer(b"", status="403 Forbidden")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        session = a_session("https://api.example")
        monkeypatch.delenv("https_proxy")

        with pytest.raises(UnsentError):  # the proxy refused the tunnel, so the request itself never left
            session.get("/secret?email=a@b.example")

    assert proxy.requests[0].startswith(b"CONNECT api.example:443 ")


def test_a_missing_certificate_bundle_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))

    with pytest.raises(ConfigError, match="REQUESTS_CA_BUNDLE"):
        a_session("https://api.example")


# --- what may have happened


def a_closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_refused_connection_is_certainly_unsent_and_not_counted() -> None:
    session = a_session(a_closed_port())

    with pytest.raises(UnsentError, match="connection refused") as error:
        session.get("/people?email=jane@acme.example")

    assert "jane" not in str(error.value)
    assert error.value.__suppress_context__
    assert session.calls() == {}


def test_tls_that_fails_is_certainly_unsent() -> None:
    with scripted_server(hang_up) as server:
        session = a_session(server.url.replace("http:", "https:"), connect_s=1.0)

        with pytest.raises(UnsentError):
            session.get("/x")


def test_a_connection_closed_before_any_answer_is_a_lost_answer() -> None:
    with scripted_server(hang_up) as server:
        session = a_session(server.url)

        with pytest.raises(LostAnswerError):
            session.post("/x", data=b"{}")

    assert len(server.requests) == 1
    assert session.calls() == {"POST /x": 1}


def test_a_reset_on_a_reused_connection_is_a_lost_answer_and_is_not_repeated() -> None:
    with scripted_server(answer(b"{}"), hang_up) as server:
        session = a_session(server.url)
        session.post("/x", data=b"{}")

        with pytest.raises(LostAnswerError):
            session.post("/x", data=b"{}")

    assert len(server.requests) == 2
    assert server.connections == 1


def test_silence_is_a_lost_answer_after_the_read_time_out() -> None:
    def silent(peer: socket.socket, _request: bytes) -> bool:
        time.sleep(1.0)
        return False

    with scripted_server(silent) as server, pytest.raises(LostAnswerError, match=r"nothing came for 0\.2 s"):
        a_session(server.url, read_s=0.2).get("/x")


def test_a_body_cut_off_keeps_what_arrived() -> None:
    with scripted_server(answer(b'{"matches": [', length=500)) as server, pytest.raises(LostAnswerError) as lost:
        a_session(server.url).get("/x")

    assert lost.value.body == b'{"matches": ['
    assert lost.value.status == 200


def test_a_body_that_drips_is_given_up() -> None:
    def drip(peer: socket.socket, _request: bytes) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(40):
            peer.sendall(b"x")
            time.sleep(0.05)
        return False

    with scripted_server(drip) as server, pytest.raises(LostAnswerError) as lost:
        a_session(server.url, read_s=0.25).get("/x")

    assert lost.value.body.startswith(b"xxx")


# --- bounds


def test_a_body_beyond_the_bound_is_refused() -> None:
    with scripted_server(answer(b"x" * 5000)) as server, pytest.raises(OversizedError) as refused:
        a_session(server.url, max_body=4096).get("/x")

    assert refused.value.body == b"x" * 4097


def test_a_body_of_exactly_the_bound_is_taken() -> None:
    with scripted_server(answer(b"x" * 4096)) as server:
        assert len(a_session(server.url, max_body=4096).get("/x").content) == 4096


def test_a_compressed_bomb_is_refused_by_its_unpacked_size() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)

    with (
        scripted_server(answer(bomb, headers="content-encoding: gzip\r\n")) as server,
        pytest.raises(OversizedError),
    ):
        a_session(server.url, max_body=1 << 20).get("/x")


def test_a_compressed_answer_is_unpacked_and_the_connection_kept() -> None:
    body = b'{"matches": [' + b"1," * 50_000 + b"1]}"
    with scripted_server(answer(gzip.compress(body), headers="content-encoding: gzip\r\n")) as server:
        session = a_session(server.url)

        bodies = {session.get("/x").content for _ in range(5)}

    assert bodies == {body}
    assert server.connections == 1


def test_chunked_answers_keep_the_connection() -> None:
    def chunked(peer: socket.socket, _request: bytes) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        return True

    with scripted_server(chunked) as server:
        session = a_session(server.url)

        assert [session.get("/x").text for _ in range(3)] == ["hello world"] * 3
    assert server.connections == 1


def test_an_answer_without_a_body_keeps_the_connection() -> None:
    with scripted_server(answer(b"", status="204 No Content")) as server:
        session = a_session(server.url)

        assert [session.delete("/x").status_code for _ in range(3)] == [204] * 3
    assert server.connections == 1


def test_a_connection_that_idled_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(answer(b"{}")) as server:
        session = a_session(server.url)
        session.get("/x")
        monkeypatch.setattr(http, "IDLE_S", 0.0)

        session.get("/x")

    assert server.connections == 2


def test_a_redirect_is_a_broken_contract_and_the_key_goes_nowhere() -> None:
    with (
        scripted_server(answer(b"{}")) as thief,
        scripted_server(answer(b"", status="307 Temporary", headers=f"location: {thief.url}/\r\n")) as server,
    ):
        with pytest.raises(ContractError, match="redirect"):
            a_session(server.url, headers={"x-api-key": "secret"}).post("/x", allow_redirects=True)

        assert thief.requests == []


def test_another_host_is_not_talked_to_unless_allowed() -> None:
    with scripted_server(answer(b"{}")) as home, scripted_server(answer(b"[]")) as other:
        session = a_session(home.url)

        with pytest.raises(ContractError, match="another host"):
            session.get(other.url + "/x")
        assert other.requests == []
        session.allow(other.url)
        assert session.get(other.url + "/x").json() == []


def test_calls_are_counted_by_operation_across_threads() -> None:
    with scripted_server(answer(b"{}")) as server:
        session = a_session(server.url, operation_of=lambda method, path: path.rpartition("/")[2])
        threads = [
            threading.Thread(target=lambda: [session.get("/a/b?x=1") for _ in range(10)], daemon=True) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert session.calls() == {"b": 40}
    assert server.connections <= 4


def test_query_strings_stay_out_of_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted_server(answer(b"{}")) as server:
        a_session(server.url).get("/people/match", params={"email": "jane@acme.example"})

    assert "/people/match" in caplog.text
    assert "jane" not in caplog.text


# --- JSON


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "nothing"),
        (b"  <!doctype html><html>jane@acme.example", "a web page"),
        (b"Service unavailable for jane@acme.example", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'"\xff\xfe"', "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
    ],
)
def test_what_is_not_json_is_a_broken_contract_that_quotes_nothing(body: bytes, words: str) -> None:
    with pytest.raises(ContractError) as broken:
        parse_json(body, provider="apollo", operation="people/match", status=502)

    assert words in str(broken.value)
    assert "jane" not in str(broken.value)
    assert broken.value.status == 502


def test_json_that_is_no_object_is_refused_where_one_is_due() -> None:
    assert parse_object(b'{"a": 1}', provider="apollo") == {"a": 1}
    with pytest.raises(ContractError, match="not an object"):
        parse_object(b"[1]", provider="apollo")


# --- waiting


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("37", 37.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("999999999", 86_400.0),
        ("Thu, 08 Oct 2026 12:01:00 GMT", 60.0),
        ("Thu, 08 Oct 2026 11:00:00 GMT", 0.0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_clamped(header: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": header}, FakeClock().now()) == seconds


class Failing:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_harmless_call_is_repeated_with_growing_waits() -> None:
    clock, call = FakeClock(), Failing(*[TransientError("busy", provider="x") for _ in range(3)])

    assert retry(call, harmless=True, clock=clock, jitter=lambda: 1.0) == "done"
    assert clock.slept == [0.5, 1.0, 2.0]


def test_the_provider_is_never_called_sooner_than_it_asked() -> None:
    clock, call = FakeClock(), Failing(RateLimitError("slow down", provider="x", retry_after_s=7.0))

    retry(call, harmless=True, clock=clock)

    assert clock.slept[0] >= 7.0


def test_a_call_that_may_have_worked_is_not_repeated() -> None:
    call = Failing(LostAnswerError("?", provider="x"))

    with pytest.raises(LostAnswerError):
        retry(call, harmless=False, clock=FakeClock())
    assert call.calls == 1


def test_a_call_that_certainly_did_nothing_is_repeated_even_when_repeating_would_harm() -> None:
    call = Failing(UnsentError("refused", provider="x"), RateLimitError("429", provider="x", retry_after_s=1.0))

    assert retry(call, harmless=False, clock=FakeClock()) == "done"


def test_tries_and_total_time_are_bounded() -> None:
    endless = Failing(*[TransientError("busy", provider="x") for _ in range(99)])
    patient = Failing(RateLimitError("429", provider="x", retry_after_s=3600.0))
    clock = FakeClock()

    with pytest.raises(TransientError):
        retry(endless, harmless=True, clock=clock, tries=4)
    with pytest.raises(RateLimitError):
        retry(patient, harmless=True, clock=clock, total_s=60.0)

    assert endless.calls == 4
    assert patient.calls == 1
