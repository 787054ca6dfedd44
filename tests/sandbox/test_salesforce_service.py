"""Around the records: logins and tokens, versions, limits, the shape of answers, describe, and the controls."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from crm_sync.sandbox import wordings
from crm_sync.sandbox.faults import Faults
from crm_sync.sandbox.salesforce import Credentials, create, ids
from crm_sync.sandbox.server import control
from crm_sync.sandbox.world import World
from tests.sandbox.salesforce_org import NOON, ROOT, OrgClient, account_id, contact_id

KNOWN = Credentials()


@pytest.fixture(scope="module")
def org() -> OrgClient:
    return OrgClient(contacts=50)


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def jwt_org(private_key: rsa.RSAPrivateKey) -> OrgClient:
    public = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return OrgClient(contacts=50, credentials=Credentials(jwt_public_key=public.decode()))


def token(org: OrgClient, form: dict[str, str], **headers: str) -> Any:
    return org.http.post("/services/oauth2/token", data=form, headers=headers)


def password_form(**changes: str) -> dict[str, str]:
    return {
        "grant_type": "password",
        "client_id": KNOWN.consumer_key,
        "client_secret": KNOWN.consumer_secret,
        "username": KNOWN.username,
        "password": KNOWN.password + KNOWN.security_token,
    } | changes


# --- logins ---------------------------------------------------------------------------------------------------------


def test_client_credentials_open_a_session(org: OrgClient) -> None:
    answer = org.login()

    assert answer.status_code == 200
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["instance_url"] == "http://localhost"
    assert answer.json["access_token"].startswith("00D")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "client_credentials"}, "invalid_client_id"),
        ({"grant_type": "client_credentials", "client_id": KNOWN.consumer_key}, "invalid_client"),
        (password_form(client_id="x"), "invalid_client_id"),
        (password_form(client_secret="x"), "invalid_client"),
        (password_form(password=KNOWN.password), "invalid_grant"),
        (password_form(username="nobody@sandbox.example"), "invalid_grant"),
        ({"grant_type": "refresh_token"}, "unsupported_grant_type"),
        ({}, "unsupported_grant_type"),
    ],
)
def test_a_login_that_fails_says_why_in_oauth_words(org: OrgClient, form: dict[str, str], error: str) -> None:
    answer = token(org, form)

    assert (answer.status_code, answer.json["error"]) == (400, error)
    assert set(answer.json) == {"error", "error_description"}


def test_the_password_grant_wants_password_and_token(org: OrgClient) -> None:
    assert token(org, password_form()).status_code == 200


def test_a_broken_basic_header_is_a_wrong_client(org: OrgClient) -> None:
    assert (
        token(org, {"grant_type": "client_credentials"}, Authorization="Basic §§").json["error"] == "invalid_client_id"
    )


def assertion(key: rsa.RSAPrivateKey, **changes: Any) -> dict[str, str]:
    claims = {
        "iss": KNOWN.consumer_key,
        "sub": KNOWN.username,
        "aud": "https://login.salesforce.com",
        "exp": str(int(NOON) + 180),
    } | changes
    return {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": jwt.encode({name: value for name, value in claims.items() if value}, key, algorithm="RS256"),
    }


def test_a_signed_assertion_opens_a_session(jwt_org: OrgClient, private_key: rsa.RSAPrivateKey) -> None:
    answer = token(jwt_org, assertion(private_key))

    assert answer.status_code == 200
    assert "issued_at" not in answer.json


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "somebody"}, "invalid_client_id"),
        ({"sub": "nobody@sandbox.example"}, "invalid_grant"),
        ({"aud": "https://login.example.com"}, "invalid_grant"),
        ({"aud": "https://salesforce.com.example"}, "invalid_grant"),
        ({"exp": str(int(NOON) - 60)}, "invalid_grant"),
        ({"exp": str(int(NOON) + 600)}, "invalid_grant"),
        ({"exp": None}, "invalid_grant"),
    ],
)
def test_an_assertion_must_be_right_in_every_claim(
    jwt_org: OrgClient, private_key: rsa.RSAPrivateKey, changes: dict[str, Any], error: str
) -> None:
    answer = token(jwt_org, assertion(private_key, **changes))

    assert (answer.status_code, answer.json["error"]) == (400, error)


def test_an_assertion_signed_by_another_key_is_refused(jwt_org: OrgClient) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    assert token(jwt_org, assertion(stranger)).json["error"] == "invalid_grant"


def soap(org: OrgClient, password: str, version: str = "59.0") -> Any:
    body = (
        '<env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Body>'
        f'<n1:login xmlns:n1="urn:partner.soap.sforce.com"><n1:username>{KNOWN.username}</n1:username>'
        f"<n1:password>{password}</n1:password></n1:login></env:Body></env:Envelope>"
    )
    return org.http.post(f"/services/Soap/u/{version}", data=body, content_type="text/xml")


def test_soap_login_gives_a_session_that_rest_accepts(org: OrgClient) -> None:
    xml = soap(org, KNOWN.password + KNOWN.security_token).text
    session = xml.partition("<sessionId>")[2].partition("</sessionId>")[0]

    answer = org.http.get(f"{ROOT}/limits", headers={"Authorization": f"Bearer {session}"})

    assert answer.status_code == 200
    assert "<serverUrl>http://localhost/services/Soap/u/59.0/00D" in xml


@pytest.mark.parametrize(
    ("password", "version", "code"),
    [
        (KNOWN.password, "59.0", "INVALID_LOGIN"),
        (KNOWN.password + KNOWN.security_token, "65.0", "UNSUPPORTED_API_VERSION"),
    ],
)
def test_soap_login_fails_as_a_fault(org: OrgClient, password: str, version: str, code: str) -> None:
    answer = soap(org, password, version)

    assert answer.status_code == 500
    assert f"<sf:exceptionCode>{code}</sf:exceptionCode>" in answer.text


# --- tokens ---------------------------------------------------------------------------------------------------------


def is_expired(answer: Any) -> bool:
    return answer.status_code == 401 and answer.json == [
        {"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}
    ]


def test_a_token_ends_after_its_time() -> None:
    org = OrgClient(contacts=50, token_seconds=60)

    org.clock.seconds += 59
    assert org.call("GET", "limits").status_code == 200
    org.clock.seconds += 2
    assert is_expired(org.call("GET", "limits"))


def test_a_token_ends_after_its_calls() -> None:
    org = OrgClient(contacts=50, token_calls=2)

    assert [org.call("GET", "limits").status_code for _ in range(3)] == [200, 200, 401]


def test_a_new_login_ends_the_old_session_only_where_told() -> None:
    for one_session, dead in ((True, True), (False, False)):
        org = OrgClient(contacts=50, one_session=one_session)
        org.login()
        assert is_expired(org.call("GET", "limits")) is dead


def test_an_admin_can_end_all_sessions() -> None:
    org = OrgClient(contacts=50)

    org.simulator.expire_tokens()

    assert is_expired(org.call("GET", "limits"))


@pytest.mark.parametrize(("header", "code"), [("", "INVALID_SESSION_ID"), ("Basic eDp5", "INVALID_AUTH_HEADER")])
def test_without_a_bearer_token_nothing_is_told(org: OrgClient, header: str, code: str) -> None:
    answer = org.http.get(f"{ROOT}/sobjects/Contact/describe", headers={"Authorization": header} if header else {})

    assert (answer.status_code, answer.json[0]["errorCode"]) == (401, code)
    assert "Sforce-Limit-Info" not in answer.headers


# --- versions, limits, shape ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"),
    [("31.0", 200), ("68.0", 200), ("30.0", 410), ("69.0", 404), ("62", 404), ("62.1", 404), ("x.0", 404)],
)
def test_versions_31_to_68_are_served_and_no_others(org: OrgClient, version: str, status: int) -> None:
    answer = org.call("GET", f"/services/data/v{version}/limits")

    assert answer.status_code == status
    assert status == 200 or set(answer.json[0]) == {"message", "errorCode"}


def test_the_list_of_versions_is_public(org: OrgClient) -> None:
    versions = org.http.get("/services/data").json

    assert versions[0] == {"label": "v31.0", "url": "/services/data/v31.0", "version": "31.0"}
    assert versions[-1]["version"] == "68.0"


def test_every_authenticated_answer_tells_the_days_calls() -> None:
    org = OrgClient(contacts=50, daily_calls=5000)

    headers = [
        org.call("GET", "limits").headers["Sforce-Limit-Info"],
        org.query("SELECT Nonsense FROM Contact").headers["Sforce-Limit-Info"],
        org.call("GET", f"sobjects/Contact/{contact_id(50)}").headers["Sforce-Limit-Info"],
        org.call("PATCH", f"sobjects/Contact/{contact_id(0)}", json={"Title": "CTO"}).headers["Sforce-Limit-Info"],
    ]

    assert headers == ["api-usage=1/5000", "api-usage=2/5000", "api-usage=3/5000", "api-usage=4/5000"]
    assert org.call("GET", "limits").json["DailyApiRequests"] == {"Max": 5000, "Remaining": 4995}


def test_beyond_the_days_calls_the_org_refuses() -> None:
    org = OrgClient(contacts=50, daily_calls=1)
    org.call("GET", "limits")

    answer = org.call("GET", "limits")

    assert (answer.status_code, answer.json[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert "TotalRequests" in answer.json[0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "nonsense", 404, "NOT_FOUND"),
        ("GET", "sobjects/Opportunity/describe", 404, "NOT_FOUND"),
        ("GET", "sobjects/Opportunity", 404, "NOT_FOUND"),
        ("GET", f"sobjects/Opportunity/{contact_id(0)}", 404, "NOT_FOUND"),
        ("GET", "jobs/query/750000000000000AAA", 404, "NOT_FOUND"),
        ("GET", "jobs/ingest/750000000000000AAA", 404, "NOT_FOUND"),
        ("DELETE", f"sobjects/Contact/{contact_id(0)}", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "query", 400, "MALFORMED_QUERY"),
    ],
)
def test_what_is_not_there_is_refused_in_the_services_shape(
    org: OrgClient, method: str, path: str, status: int, code: str
) -> None:
    body = {"json": {}} if method == "POST" else {}

    answer = org.call(method, path, **body)

    assert (answer.status_code, answer.json[0]["errorCode"]) == (status, code)


def test_answers_are_pretty_only_on_request(org: OrgClient) -> None:
    plain = org.call("GET", "limits")
    pretty = org.call("GET", "limits", headers={"X-PrettyPrint": "1"})

    assert b"\n" not in plain.data
    assert b'\n  "DailyApiRequests"' in pretty.data
    assert plain.headers["Content-Type"] == "application/json;charset=UTF-8"


@pytest.mark.parametrize("path", ["sobjects", "sobjects/Contact", "sobjects/Contact/describe", "query"])
def test_paths_answer_the_same_with_a_slash_behind(org: OrgClient, path: str) -> None:
    question = {"query_string": {"q": "SELECT Id FROM Contact ORDER BY Id LIMIT 1"}}

    plain, slashed = org.call("GET", path, **question), org.call("GET", f"{path}/", **question)

    assert plain.status_code == slashed.status_code == 200
    assert plain.json == slashed.json


# --- describe -------------------------------------------------------------------------------------------------------


def test_the_list_of_objects_names_prefixes_and_addresses(org: OrgClient) -> None:
    answer = org.call("GET", "sobjects").json

    assert [(item["name"], item["keyPrefix"]) for item in answer["sobjects"]] == [
        ("Account", "001"),
        ("Contact", "003"),
        ("Lead", "00Q"),
    ]
    assert answer["sobjects"][1]["urls"]["describe"] == f"{ROOT}/sobjects/Contact/describe"


def described(org: OrgClient, name: str) -> dict[str, dict[str, Any]]:
    answer = org.call("GET", f"sobjects/{name}/describe")
    return {field["name"]: field for field in answer.json["fields"]}


def test_the_orgs_own_fields_are_described(org: OrgClient) -> None:
    for name in ("Contact", "Lead"):
        fields = described(org, name)
        seniority = fields["Seniority__c"]
        assert (seniority["type"], seniority["restrictedPicklist"], seniority["custom"]) == ("picklist", True, True)
        assert [value["value"] for value in seniority["picklistValues"] if value["active"]] == [
            "Executive",
            "VP",
            "Director",
            "Manager",
            "Individual Contributor",
        ]
        assert [value["value"] for value in seniority["picklistValues"] if not value["active"]] == ["Chief"]
        assert (fields["LinkedIn__c"]["type"], fields["LinkedIn__c"]["length"]) == ("url", 255)
        assert fields["Department__c"]["length"] == 80
        assert fields["Apollo_Enriched_At__c"]["type"] == "datetime"
        assert fields["DoNotCall"]["type"] == "boolean"
    account = described(org, "Account")
    assert [value["value"] for value in account["Size_Band__c"]["picklistValues"]] == ["1-50", "51+"]


def test_a_hidden_field_is_absent_from_the_describe() -> None:
    org = OrgClient(contacts=50, hidden={"Contact": ["DoNotCall", "HasOptedOutOfEmail"]})

    assert not {"DoNotCall", "HasOptedOutOfEmail"} & set(described(org, "Contact"))
    assert "DoNotCall" in described(org, "Lead")


@pytest.mark.parametrize("hidden", [{"Contact": ["Titel"]}, {"Kontakt": []}])
def test_hiding_what_does_not_exist_is_a_mistake(hidden: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"Titel|Kontakt"):
        create(World(7, 50), hidden=hidden)


def test_records_hold_only_values_their_fields_describe(org: OrgClient) -> None:
    for name in ("Account", "Contact", "Lead"):
        fields = described(org, name)
        for row in org.rows(f"SELECT {', '.join(fields)} FROM {name}"):
            for field in fields.values():
                value = row[field["name"]]
                if value is None:
                    assert field["nillable"], f"{name}.{field['name']} is null"
                elif isinstance(value, str):
                    assert len(value) <= (field["length"] or 28)
                if field["restrictedPicklist"] and value is not None:
                    assert value in [choice["value"] for choice in field["picklistValues"]]


# --- ids ------------------------------------------------------------------------------------------------------------


def test_ids_carry_the_services_checksum() -> None:
    # Ids of a real org, as recorded by cumulusci.
    for real in ("0012300000bVTq1AAG", "0035500001H9cakAAB", "0057e00000RmwSWAAZ", "01254000001upcKAAQ"):
        assert real[:15] + ids.checksum(real[:15]) == real
    assert ids.normalise(contact_id(7)[:15]) == contact_id(7)


def test_ids_rise_with_the_index_and_lead_back_to_it() -> None:
    some = [0, 1, 61, 62, 3843, 3844, 238_327, 238_328, 999_999]

    made = [contact_id(index) for index in some]

    assert made == sorted(made)
    assert [ids.number(record_id) for record_id in made] == some
    assert {record_id[15:] for record_id in made} == {ids.checksum(record_id[:15]) for record_id in made}


# --- controls -------------------------------------------------------------------------------------------------------


def test_calls_are_counted_by_template_and_faults_speak_the_services_language() -> None:
    app = create(World(7, 50))
    control(app, app.extensions["simulator"], Faults(wordings.salesforce))
    http = app.test_client()
    access = token_of(http)
    http.get(f"{ROOT}/sobjects/Contact/{contact_id(0)}", headers=access)
    http.get(f"{ROOT}/sobjects/Account/{account_id(0)}", headers=access)
    http.post("/_sandbox/faults", json=[{"call": "GET */query", "what": "503"}])

    spoiled = http.get(f"{ROOT}/query?q=SELECT+Id+FROM+Contact", headers=access)
    edited = http.post(f"/_sandbox/records/Contact/{contact_id(0)}", json={"Title": "Typed"})
    wrong = http.post(f"/_sandbox/records/Contact/{contact_id(0)}", json={"Titel": "Typed"})

    assert http.get("/_sandbox/calls").json == {
        "POST /services/oauth2/token": 1,
        "GET /services/data/v<version>/sobjects/<name>/<record_id>": 2,
        "GET /services/data/v<version>/query": 1,
    }
    assert (spoiled.status_code, spoiled.json[0]["errorCode"]) == (503, "SERVER_UNAVAILABLE")
    assert (edited.status_code, edited.json["Title"]) == (200, "Typed")
    assert (wrong.status_code, "No such column" in wrong.json["error"]) == (400, True)
    assert list(http.get("/_sandbox/state").json["touched"]["Contact"]) == [contact_id(0)]


def token_of(http: Any) -> dict[str, str]:
    answer = http.post("/services/oauth2/token", data=password_form())
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


def test_a_page_of_a_large_org_costs_little_time_and_starts_where_told() -> None:
    org = OrgClient(contacts=1_000_000)
    where = f"(Title = null OR Seniority__c = null) AND Id > '{contact_id(900_000)}'"
    started = time.process_time()

    rows = org.rows(f"SELECT Id, Title, Seniority__c, Email FROM Contact WHERE {where} ORDER BY Id LIMIT 2000")

    # A scan from the start would take a quarter of a minute.
    assert time.process_time() - started < 1.0
    assert len(rows) == 2000
    assert contact_id(900_000) < rows[0]["Id"] < rows[-1]["Id"] < contact_id(904_000)
