"""The session under simple-salesforce: one log-in for all, the same request again, and nothing said too much."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import orjson
import pytest

from adapters.salesforce.session import SalesforceCredentials, SalesforceSession, operation_of
from crm_sync.errors import ConfigError, ContractError, CredentialsError, RefusedError, TransientError
from crm_sync.sandbox.salesforce import Credentials
from tests.adapters.salesforce_org import APP, KNOWN, RunningOrg, key_pair, running_org
from tests.adapters.scripted_server import Reply, Scripted, answer, hang_up, scripted_server
from tests.clocks import FakeClock

JSON = "content-type: application/json\r\n"
EXPIRED = orjson.dumps([{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}])
PATH = "/services/data/v62.0/limits"
#: As simple-salesforce asks: https whatever the org's address.
URL = "https://acme.my.salesforce.com" + PATH


def a_session(url: str, credentials: SalesforceCredentials = APP) -> SalesforceSession:
    return SalesforceSession(name="salesforce", url=url, setting="URL", credentials=credentials, clock=FakeClock())


def token(server_url: str = "https://acme.my.salesforce.com", text: str = "t0ken") -> Reply:
    return answer(orjson.dumps({"access_token": text, "instance_url": server_url}), headers=JSON)


def ok(body: bytes = b"{}", headers: str = JSON) -> Reply:
    return answer(body, headers=headers)


def unauthorised(body: bytes = EXPIRED) -> Reply:
    return answer(body, status="401 Unauthorized", headers=JSON)


def sent(server: Scripted) -> list[tuple[str, dict[str, str], bytes]]:
    """(request line, headers in lower case, body) of each request."""
    found = []
    for raw in server.requests:
        head, _, body = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        found.append((line, {k.lower(): v for k, _, v in (each.partition(": ") for each in lines)}, body))
    return found


# --- the address --------------------------------------------------------------------------------------------------


def test_the_librarys_https_address_is_asked_at_the_configured_one() -> None:
    with scripted_server(token(), ok()) as server:
        a_session(server.url).request("GET", URL, params={"q": "SELECT Id FROM A WHERE B > 2026-01-01T00:00:00+01:00"})

    line, headers, _ = sent(server)[1]
    assert line == f"GET {PATH}?q=SELECT+Id+FROM+A+WHERE+B+%3E+2026-01-01T00%3A00%3A00%2B01%3A00 HTTP/1.1"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["sforce-call-options"] == "client=crm-sync"


def test_pretty_printing_and_the_librarys_own_token_are_left_out() -> None:
    with scripted_server(token(), ok()) as server:
        a_session(server.url).request("GET", URL, headers={"X-PrettyPrint": "1", "Authorization": "Bearer x", "A": "b"})

    _, headers, _ = sent(server)[1]
    assert "x-prettyprint" not in headers
    assert (headers["authorization"], headers["a"]) == ("Bearer t0ken", "b")


@pytest.mark.parametrize(
    "instance",
    ["https://evil.example", "https://salesforce.com.evil.example", "https://x@evil.example/.salesforce.com", "", "//"],
)
def test_a_log_in_that_names_a_foreign_address_is_refused(instance: str) -> None:
    with scripted_server(token(instance), ok()) as server:
        session = a_session(server.url)
        with pytest.raises((CredentialsError, TransientError)):
            session.request("GET", URL)

    assert len(server.requests) == 1


def test_loopback_stays_on_loopback_whatever_the_log_in_names() -> None:
    with scripted_server(token("https://other.my.salesforce.com"), ok()) as server:
        session = a_session(server.url)
        session.request("GET", URL)

        assert session.target == server.url


def test_a_real_orgs_own_address_is_followed_after_the_log_in() -> None:
    session = a_session("https://test.salesforce.com", replace(APP, auth="jwt", private_key="k", username="u"))

    assert session._place("acme--uat.sandbox.my.salesforce.com") == "https://acme--uat.sandbox.my.salesforce.com"
    for foreign in ("127.0.0.1", "acme.my.salesforce.com:8443", "acme.my.salesforce.com:x", "salesforce.com.example"):
        with pytest.raises(CredentialsError, match="not Salesforce's"):
            session._place(foreign)


def test_a_redirect_is_never_followed() -> None:
    moved = answer(b"", status="302 Found", headers="location: http://127.0.0.2:9/x\r\n")
    with scripted_server(token(), moved) as server, pytest.raises(ContractError, match="redirect"):
        a_session(server.url).request("GET", URL)

    assert len(server.requests) == 2


# --- one renewal --------------------------------------------------------------------------------------------------


def test_an_expired_token_is_renewed_and_the_same_request_sent_again() -> None:
    with scripted_server(token(text="one"), unauthorised(), token(text="two"), ok(b"[1]")) as server:
        response = a_session(server.url).request(
            "PATCH", URL, data=b'{"a": 1}', headers={"Sforce-Auto-Assign": "FALSE", "Content-Type": "application/json"}
        )

    (_, first, body_one), _, (_, again, body_two) = sent(server)[1:]
    assert response.json() == [1]
    assert body_one == body_two == b'{"a": 1}'
    assert first.pop("authorization") == "Bearer one"
    assert again.pop("authorization") == "Bearer two"
    assert first == again
    assert again["sforce-auto-assign"] == "FALSE"


def test_twenty_threads_that_meet_an_expired_token_log_in_once() -> None:
    with running_org(one_session=True) as org:
        session = a_session(org.url)
        session.request("GET", URL)
        org.simulator.expire_tokens()
        start = threading.Barrier(20)

        def ask(_n: int) -> int:
            start.wait()
            return int(session.request("GET", URL).status_code)

        with ThreadPoolExecutor(20) as threads:
            statuses = list(threads.map(ask, range(20)))

        assert statuses == [200] * 20
        assert org.simulator.state()["logins"] == 2


def test_twenty_threads_with_a_wrong_secret_ask_for_it_once() -> None:
    slow = threading.Event()

    def refuse(peer: Any, _request: bytes) -> bool:
        slow.wait(1)
        return answer(b'{"error": "invalid_client"}', status="400 Bad Request", headers=JSON)(peer, _request)

    with scripted_server(refuse) as server:
        session = a_session(server.url)
        start = threading.Barrier(20)

        def ask(_n: int) -> str:
            start.wait()
            with pytest.raises(CredentialsError) as caught:
                session.request("GET", URL)
            return str(caught.value)

        with ThreadPoolExecutor(20) as threads:
            told = set(threads.map(ask, range(20)))

        assert len(told) == 1
        assert len(server.requests) == 1


def test_a_token_refused_as_soon_as_it_is_given_ends_after_three_log_ins() -> None:
    def reply(peer: Any, request: bytes) -> bool:
        return (token() if b"/oauth2/" in request else unauthorised())(peer, request)

    with scripted_server(reply) as server:
        session = a_session(server.url)
        for _ in range(6):
            with pytest.raises(CredentialsError):
                session.request("GET", URL)

    assert sum("/oauth2/token" in line for line, _, _ in sent(server)) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in</html>",
        b"",
        orjson.dumps([{"errorCode": "INVALID_AUTH_HEADER", "message": "x"}]),
        orjson.dumps(
            [{"errorCode": "INVALID_SESSION_ID", "message": "This session is not valid for use with the REST API"}]
        ),
    ],
)
def test_a_401_that_no_token_cures_is_not_answered_by_a_log_in(body: bytes) -> None:
    with scripted_server(token(), unauthorised(body)) as server, pytest.raises(CredentialsError) as caught:
        a_session(server.url).request("GET", URL)

    assert len(server.requests) == 2
    assert "html" not in str(caught.value)


def test_a_session_without_a_log_in_is_not_renewed() -> None:
    with scripted_server(unauthorised()) as server:
        session = a_session(server.url, SalesforceCredentials(auth="session", session_id="s3ssion"))
        with pytest.raises(CredentialsError, match="cannot be renewed") as caught:
            session.request("GET", URL)

    assert [headers["authorization"] for _, headers, _ in sent(server)] == ["Bearer s3ssion"]
    assert "s3ssion" not in str(caught.value)


# --- other answers ------------------------------------------------------------------------------------------------


def test_an_html_page_is_a_failure_of_the_moment_and_its_text_is_not_shown() -> None:
    page = answer(b"<html>Bad Gateway</html>", status="502 Bad Gateway", headers="content-type: text/html\r\n")
    with scripted_server(token(), page) as server, pytest.raises(TransientError, match="HTTP 502") as caught:
        a_session(server.url).request("GET", URL)

    assert "<" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b'{"cut', b"<html>hello</html>", b"\xff"])
def test_a_success_that_is_not_json_is_a_failure_of_the_moment(body: bytes) -> None:
    with scripted_server(token(), ok(body)) as server:
        response = a_session(server.url).request("GET", URL)

        with pytest.raises(TransientError, match="not JSON") as caught:
            response.json(object_pairs_hook=None)

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_org_that_hangs_up_is_a_failure_of_the_moment() -> None:
    with scripted_server(token(), hang_up) as server, pytest.raises(TransientError):
        a_session(server.url).request("GET", URL)


def test_a_refusal_is_never_returned_to_the_library() -> None:
    refused = answer(b'[{"errorCode": "NOT_FOUND", "message": "x"}]', status="404 Not Found", headers=JSON)
    with scripted_server(token(), refused) as server, pytest.raises(RefusedError, match="NOT_FOUND"):
        a_session(server.url).request("GET", URL)


@pytest.mark.parametrize(
    ("header", "usage"),
    [
        ("api-usage=8582/15000", (8582, 15000)),
        ("api-usage=18/5000; per-app-api-usage=17/250(appName=x)", (18, 5000)),
        ("nonsense", None),
    ],
)
def test_the_orgs_own_count_of_calls_is_kept(header: str, usage: tuple[int, int] | None) -> None:
    with scripted_server(token(), ok(headers=f"{JSON}sforce-limit-info: {header}\r\n")) as server:
        session = a_session(server.url)
        session.request("GET", URL)

    assert session.usage == usage


# --- logging in ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def org() -> Any:
    with running_org(credentials=Credentials(jwt_public_key=key_pair()[1])) as running:
        yield running


WAYS = {
    "client_credentials": APP,
    "password": SalesforceCredentials(
        auth="password", username=KNOWN.username, password=KNOWN.password, security_token=KNOWN.security_token
    ),
    "jwt": SalesforceCredentials(auth="jwt", consumer_key=KNOWN.consumer_key, username=KNOWN.username),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_logging_in_opens_the_org(org: RunningOrg, way: str) -> None:
    credentials = WAYS[way] if way != "jwt" else replace(WAYS[way], private_key=key_pair()[0])
    session = a_session(org.url, credentials)

    assert session.request("GET", URL).json()["DailyApiRequests"]["Max"] > 0
    assert session.calls() == {"login": 1, "limits": 1}


def test_a_session_id_of_somebody_elses_log_in_opens_the_org(org: RunningOrg) -> None:
    first = a_session(org.url)
    first.login()
    assert first._token is not None

    second = a_session(org.url, SalesforceCredentials(auth="session", session_id=first._token.text))

    assert second.request("GET", URL).status_code == 200
    assert second.calls() == {"limits": 1}


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (replace(APP, consumer_secret="wr0ng"), "client_credentials .invalid_client"),
        (replace(WAYS["password"], password="wr0ng"), "password .INVALID_LOGIN: Invalid username"),
        (replace(WAYS["jwt"], private_key=key_pair()[0], username="no@wr0ng.example"), "hasn't approved"),
        (replace(WAYS["jwt"], private_key="wr0ng"), "private key cannot sign"),
        (replace(WAYS["jwt"], private_key=key_pair()[1]), "private key cannot sign"),
    ],
)
def test_a_refused_log_in_says_why_and_no_secret(
    org: RunningOrg, credentials: SalesforceCredentials, said: str
) -> None:
    with pytest.raises(CredentialsError, match=said) as caught:
        a_session(org.url, credentials).login()

    told = f"{caught.value} {caught.value.__cause__}"
    assert "wr0ng" not in told
    assert KNOWN.consumer_key not in told


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(b'{"error": "unknown_error", "error_description": "retry"}', status="400 Bad"), TransientError),
        (answer(b"busy", status="503 Busy"), TransientError),
        (answer(b"", status="429 Too Many"), TransientError),
        (answer(b"<html>no such page</html>", status="404 Not Found"), CredentialsError),
        (answer(b"<html>welcome</html>"), TransientError),
        (answer(b'{"access_token": 5, "instance_url": "https://a.my.salesforce.com"}'), TransientError),
        (answer(b'{"access_token": "a\\nb", "instance_url": "https://a.my.salesforce.com"}'), TransientError),
        (answer(b'{"instance_url": "https://a.my.salesforce.com"}'), TransientError),
    ],
)
@pytest.mark.parametrize("way", ["client_credentials", "password"])
def test_an_odd_answer_to_a_log_in_is_sorted_by_remedy(way: str, reply: Reply, kind: type[Exception]) -> None:
    with scripted_server(reply) as server, pytest.raises(kind) as caught:
        a_session(server.url, WAYS[way]).login()

    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"), [("SERVER_UNAVAILABLE", TransientError), ("LOGIN_MUST_USE_SECURITY_TOKEN", CredentialsError)]
)
def test_a_soap_fault_is_sorted_by_its_code(code: str, kind: type[Exception]) -> None:
    fault = (
        '<soapenv:Envelope xmlns:soapenv="e" xmlns:sf="f"><soapenv:Body><soapenv:Fault><faultcode>x</faultcode><detail>'
        f"<sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>why</sf:exceptionMessage>"
        "</detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    )
    reply = answer(fault.encode(), status="500 Error", headers="content-type: text/xml\r\n")
    with scripted_server(reply) as server, pytest.raises(kind, match=code):
        a_session(server.url, WAYS["password"]).login()


def test_the_body_of_a_log_in_holds_the_secrets_and_the_log_of_calls_does_not() -> None:
    with scripted_server(token(), ok()) as server:
        session = a_session(server.url, replace(WAYS["jwt"], private_key=key_pair()[0]))
        session.request("GET", URL)

    (line, headers, body), _ = sent(server)
    assert line == "POST /services/oauth2/token HTTP/1.1"
    assert b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" in body
    assert "authorization" not in headers
    assert session.calls() == {"login": 1, "limits": 1}


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (SalesforceCredentials(), "consumer_key and consumer_secret"),
        (SalesforceCredentials(auth="jwt", consumer_key="k"), "private_key and username"),
        (SalesforceCredentials(auth="password", username="u"), "needs password"),
        (SalesforceCredentials(auth="session"), "needs session_id"),
        (SalesforceCredentials(auth="session", session_id="s3cret\n"), "copy it again"),
    ],
)
def test_incomplete_credentials_are_refused_before_any_call(credentials: SalesforceCredentials, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        a_session("https://acme.my.salesforce.com", credentials)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["login", "test"])
def test_client_credentials_need_the_orgs_own_address(host: str) -> None:
    with pytest.raises(ConfigError, match="My Domain"):
        a_session(f"https://{host}.salesforce.com")


def test_credentials_show_no_secret() -> None:
    names = [each.name for each in fields(SalesforceCredentials) if each.name != "auth"]

    secrets: dict[str, Any] = dict.fromkeys(names, "s3cret")

    shown = repr(SalesforceCredentials(**secrets))

    assert len(names) == 7
    assert "s3cret" not in shown


# --- the rest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/services/oauth2/token", "login"),
        ("POST", "/services/Soap/u/62.0", "login"),
        ("GET", "/services/data/v62.0/sobjects/Contact/describe", "describe"),
        ("GET", "/services/data/v62.0/query/", "query"),
        ("GET", "/services/data/v62.0/query/0r8-2000", "query"),
        ("POST", "/services/data/v62.0/composite/sobjects/Contact", "read"),
        ("PATCH", "/services/data/v62.0/composite/sobjects", "write"),
        ("GET", "/services/data/v62.0/limits/", "limits"),
        ("GET", "/elsewhere", "other"),
    ],
)
def test_a_call_is_counted_by_what_it_is_for(method: str, path: str, name: str) -> None:
    assert operation_of(method, path) == name


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, adapters.salesforce.client as c, adapters.salesforce.session as s\n"
        "from crm_sync.clock import SystemClock\n"
        "c.SalesforceCrm(name='s', url='https://a.my.salesforce.com', clock=SystemClock(),"
        " credentials=s.SalesforceCredentials(consumer_key='k', consumer_secret='s'))\n"
        "assert not {'simple_salesforce', 'zeep', 'lxml', 'jwt'} & set(sys.modules)\n"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
