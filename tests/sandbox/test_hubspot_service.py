"""What every call meets: keys, scopes, limits, paths; and the list and the properties."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crm_sync.sandbox import hubspot
from tests.sandbox.hubspot_account import COMPANIES, CONTACTS, NOON, Account, Clock, an_input, company_id, contact_id

HEADERS = {
    "X-HubSpot-RateLimit-Max", "X-HubSpot-RateLimit-Remaining", "X-HubSpot-RateLimit-Interval-Milliseconds",
}  # fmt: skip
DAILY = {"X-HubSpot-RateLimit-Daily", "X-HubSpot-RateLimit-Daily-Remaining"}


def limit_headers(answer: Any) -> set[str]:
    return {name for name, _ in answer.headers if "ratelimit" in name.lower()}


def oauth_form(**changes: str) -> dict[str, str]:
    client_id, secret, refresh_token = hubspot.CLIENT
    return {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": secret,
        "refresh_token": refresh_token,
        **changes,
    }


def an_oauth_account(**options: Any) -> Account:
    """An account whose calls carry an OAuth token."""
    account = Account(20, **options)
    account.token = account.http.post("/oauth/v1/token", data=oauth_form()).json["access_token"]
    return account


# --- keys


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer other", f"Basic {hubspot.TOKEN}", hubspot.TOKEN])
@pytest.mark.parametrize("path", [CONTACTS, "/crm/v3/properties/contacts", "/account-info/v3/details"])
def test_a_call_without_the_key_is_a_401(path: str, header: str) -> None:
    answer = Account(20).http.get(path, headers={"Authorization": header} if header else {})

    assert (answer.status_code, answer.json["category"]) == (401, "INVALID_AUTHENTICATION")


def test_an_oauth_token_works_until_it_ends() -> None:
    account = an_oauth_account(token_seconds=600)
    account.clock.forward(599)
    alive = account.get(CONTACTS)
    account.clock.forward(8)
    ended = account.get(CONTACTS)

    assert alive.status_code == 200
    assert (ended.status_code, ended.json["category"]) == (401, "EXPIRED_AUTHENTICATION")
    assert "expired 7 second(s) ago" in ended.json["message"]
    assert account.simulator.state()["logins"] == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"refresh_token": "other"}, "BAD_REFRESH_TOKEN"),
        ({"refresh_token": ""}, "BAD_REFRESH_TOKEN"),
        ({"client_id": "other"}, "BAD_CLIENT_ID"),
        ({"client_secret": "other"}, "BAD_CLIENT_SECRET"),
        ({"grant_type": "authorization_code"}, "BAD_AUTH_CODE"),
        ({"grant_type": "password"}, "BAD_GRANT_TYPE"),
    ],
)
def test_a_token_call_with_something_wrong_says_what(changes: dict[str, str], status: str) -> None:
    answer = Account(20).http.post("/oauth/v1/token", data=oauth_form(**changes))

    assert (answer.status_code, answer.json["status"]) == (400, status)


def test_the_token_call_takes_a_form_only() -> None:
    assert Account(20).http.post("/oauth/v1/token", json=oauth_form()).status_code == 415


# --- scopes


@pytest.mark.parametrize(
    ("method", "path", "body", "missing"),
    [
        ("GET", CONTACTS, None, "crm.objects.contacts.read"),
        ("GET", f"{CONTACTS}/{contact_id(0)}", None, "crm.objects.contacts.read"),
        ("POST", f"{CONTACTS}/search", {}, "crm.objects.contacts.read"),
        ("POST", f"{CONTACTS}/batch/read", {"inputs": [{"id": contact_id(0)}]}, "crm.objects.contacts.read"),
        (
            "POST",
            f"{COMPANIES}/batch/update",
            {"inputs": [an_input(company_id(0), city="Leeds")]},
            "crm.objects.companies.write",
        ),
        ("PATCH", f"{COMPANIES}/{company_id(0)}", {"properties": {"city": "Leeds"}}, "crm.objects.companies.write"),
    ],
)
def test_a_missing_scope_is_named(method: str, path: str, body: Any, missing: str) -> None:
    account = Account(20, scopes=[each for each in hubspot.SCOPES if each != missing])

    answer = account.call(method, path, **({"json": body} if body is not None else {}))

    assert (answer.status_code, answer.json["category"]) == (403, "MISSING_SCOPES")
    assert answer.json["errors"][0]["context"]["requiredGranularScopes"] == [missing]
    assert account.simulator.state()["written"]["companies"] == 0


def test_any_scope_of_the_type_shows_its_properties() -> None:
    for scope in ("crm.schemas.contacts.read", "crm.objects.contacts.read", "crm.objects.contacts.write"):
        account = Account(20, scopes=[scope])

        assert account.get("/crm/v3/properties/contacts").status_code == 200
        assert account.get("/crm/v3/properties/companies").status_code == 403


# --- limits


def test_headers_tell_the_window_and_the_day_but_not_on_searches() -> None:
    account = Account(20, burst=190, daily=1_000)

    listed, searched = account.get(CONTACTS), account.search()

    assert limit_headers(listed) == HEADERS | DAILY
    assert (listed.headers["X-HubSpot-RateLimit-Max"], listed.headers["X-HubSpot-RateLimit-Remaining"]) == (
        "190",
        "189",
    )
    assert limit_headers(searched) == set()
    assert account.get(CONTACTS).headers["X-HubSpot-RateLimit-Daily-Remaining"] == "997"


def test_an_oauth_app_is_not_told_of_the_day_and_has_a_smaller_window() -> None:
    answer = an_oauth_account(burst=190, daily=1_000).get(CONTACTS)

    assert limit_headers(answer) == HEADERS
    assert answer.headers["X-HubSpot-RateLimit-Max"] == "110"


def test_the_window_of_ten_seconds_rolls() -> None:
    account = Account(20, burst=3)
    statuses = [account.get(CONTACTS).status_code for _ in range(3)]

    account.clock.forward(9)
    refused = account.get(CONTACTS)
    account.clock.forward(1.5)
    statuses.append(account.get(CONTACTS).status_code)

    assert statuses == [200] * 4
    assert refused.status_code == 429
    assert (refused.json["errorType"], refused.json["policyName"]) == ("RATE_LIMIT", "TEN_SECONDLY_ROLLING")
    assert refused.json["message"] == "You have reached your ten_secondly_rolling limit."
    assert not {"category", "Retry-After"} & ({*refused.json} | {name for name, _ in refused.headers})
    assert limit_headers(refused) >= HEADERS
    assert account.simulator.state()["refused_by_limit"] == 1


def test_searches_have_a_second_of_their_own() -> None:
    account = Account(20, burst=2, searches_per_s=5)
    searched = [account.search().status_code for _ in range(6)]
    listed = [account.get(CONTACTS).status_code for _ in range(3)]
    account.clock.forward(1.01)

    assert searched == [200] * 5 + [429]
    assert listed == [200, 200, 429]
    assert account.search().status_code == 200


def test_a_refused_call_reads_and_writes_nothing() -> None:
    account = Account(20, burst=1)
    account.get(CONTACTS)

    answer = account.update(an_input(contact_id(0), city="Leeds"))

    assert answer.status_code == 429
    assert account.simulator.state()["written"]["contacts"] == 0


def test_the_day_ends_at_the_accounts_midnight() -> None:
    account = Account(20, daily=2)
    for _ in range(2):
        account.search()
    refused = account.get(CONTACTS)

    account.clock.forward(16 * 3600 + 59 * 60)  # 23:59 in New York
    late = account.get(CONTACTS)
    account.clock.forward(120)

    assert (refused.status_code, refused.json["policyName"]) == (429, "DAILY")
    assert late.status_code == 429
    assert account.get(CONTACTS).status_code == 200


# --- paths


@pytest.mark.parametrize("path", ["/crm/v3/objects/deals", "/crm/v3/properties/0-3", "/crm/v3/objects/contact"])
def test_an_object_type_nobody_has_is_a_400(path: str) -> None:
    answer = Account(20).get(path)

    assert answer.status_code == 400
    assert "object type" in answer.json["message"]


def test_types_go_by_number_too() -> None:
    account = Account(20)

    assert account.get("/crm/v3/objects/0-1").json["results"][0]["id"] == contact_id(0)
    assert account.get("/crm/v3/objects/0-2").json["results"][0]["id"] == company_id(0)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", CONTACTS), ("DELETE", f"{CONTACTS}/1"), ("POST", f"{CONTACTS}/batch/create")]
)
def test_what_is_not_simulated_is_refused(method: str, path: str) -> None:
    account = Account(20)

    assert account.call(method, path, json={"properties": {"email": "a@b.test"}}).status_code in (404, 405)
    assert account.simulator.state()["records"]["contacts"] == 20


def test_an_address_that_is_too_long_is_a_414() -> None:
    names = ",".join(f"property_{n}" for n in range(1_000))

    assert Account(20).get(CONTACTS, properties=names).status_code == 414


def test_a_body_must_say_that_it_is_json() -> None:
    answer = Account(20).call("POST", f"{CONTACTS}/search", data=b"{}", headers={"Content-Type": "text/plain"})

    assert answer.status_code == 415


def test_the_account_tells_its_number_and_its_clock() -> None:
    details = Account(20).get("/account-info/v3/details").json

    assert details["portalId"] == hubspot.PORTAL_ID
    assert (details["timeZone"], details["utcOffset"]) == ("US/Eastern", "-05:00")
    assert details["uiDomain"] == "app.hubspot.com"
    assert datetime.fromtimestamp(NOON, UTC).month == 11, "winter time"


def test_a_moving_account_answers_477_for_so_long() -> None:
    account = Account(20)
    account.simulator.move_account(30)

    answer = account.get(CONTACTS)
    account.clock.forward(31)

    assert (answer.status_code, answer.headers["Retry-After"]) == (477, "30")
    assert account.get(CONTACTS).status_code == 200


# --- the list


def test_the_list_walks_all_by_the_id_of_the_next() -> None:
    account = Account(230)
    account.simulator.edit("contacts", contact_id(100), {"archived": True})
    ids: list[str] = []
    query: dict[str, Any] = {"limit": 100}

    while True:
        page = account.get(CONTACTS, **query).json
        ids += [record["id"] for record in page["results"]]
        if "paging" not in page:
            break
        query["after"] = page["paging"]["next"]["after"]

    assert ids == [contact_id(n) for n in range(230) if n != 100]
    assert query["after"] == contact_id(201)


def test_a_page_can_begin_at_any_id() -> None:
    account = Account(60)

    assert account.get(CONTACTS, after="1", limit=1).json["results"][0]["id"] == contact_id(0)
    assert account.get(CONTACTS, after=contact_id(59), limit=5).json["results"][0]["id"] == contact_id(59)
    assert account.get(CONTACTS, after="99999999999", limit=5).json == {"results": []}


@pytest.mark.parametrize("form", [{"properties": ["email", "jobtitle"]}, {"properties": "email,jobtitle"}])
def test_properties_are_repeated_or_joined_and_unknown_ones_left_out(form: dict[str, Any]) -> None:
    account = Account(20)

    (record,) = account.get(CONTACTS, limit=1, **form).json["results"]
    unknown = account.get(CONTACTS, limit=1, properties="no_such_property").json["results"][0]["properties"]

    assert set(record["properties"]) == {"email", "jobtitle", "createdate", "hs_object_id", "lastmodifieddate"}
    assert set(unknown) == {"createdate", "hs_object_id", "lastmodifieddate"}


def test_archived_records_come_only_when_asked_for() -> None:
    account = Account(20)
    account.simulator.edit("contacts", contact_id(3), {"archived": True})

    (record,) = account.get(CONTACTS, archived="True").json["results"]

    assert (record["id"], record["archived"], record["archivedAt"]) == (
        contact_id(3),
        True,
        "2026-11-02T12:00:00.000Z",
    )
    assert account.get(f"{CONTACTS}/{contact_id(3)}").status_code == 404
    assert account.get(f"{CONTACTS}/{contact_id(3)}", archived="true").status_code == 200
    assert account.get(f"{CONTACTS}/{contact_id(4)}", archived="true").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 101},
        {"limit": 0},
        {"limit": "ten"},
        {"limit": 51, "propertiesWithHistory": "jobtitle"},
        {"after": "abc"},
        {"archived": "yes"},
        {"associations": "deals"},
    ],
)
def test_a_list_call_outside_its_caps_is_a_400(query: dict[str, Any]) -> None:
    answer = Account(20).get(CONTACTS, **query)

    assert (answer.status_code, answer.json["category"]) == (400, "VALIDATION_ERROR")


def test_the_list_tells_the_primary_company_when_asked() -> None:
    account = Account(20)

    (record,) = account.get(CONTACTS, limit=1, associations="companies").json["results"]

    assert [each["id"] for each in record["associations"]["companies"]["results"]] == [
        account.value(contact_id(0), "associatedcompanyid")
    ] * 2


# --- properties


def described(account: Account, object_type: str) -> dict[str, dict[str, Any]]:
    answer = account.get(f"/crm/v3/properties/{object_type}")
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json["results"]}


def test_the_same_name_has_another_type_on_the_other_object() -> None:
    account = Account(20)
    contacts, companies = described(account, "contacts"), described(account, "companies")

    assert (contacts["industry"]["type"], companies["industry"]["type"]) == ("string", "enumeration")
    assert (contacts["annualrevenue"]["type"], companies["annualrevenue"]["type"]) == ("string", "number")
    assert (contacts["numemployees"]["type"], companies["numberofemployees"]["type"]) == ("enumeration", "number")
    assert (contacts["seniority"]["type"], contacts["hs_seniority"]["type"]) == ("string", "enumeration")
    assert (companies["founded_year"]["type"], companies["total_money_raised"]["type"]) == ("string", "string")
    assert "hs_country_region_code" in contacts
    assert "hs_country_code" in companies
    assert "linkedin_url" not in contacts


def test_the_metadata_says_what_may_be_written() -> None:
    contacts = described(Account(20), "contacts")
    read_only = {name for name, each in contacts.items() if each["modificationMetadata"]["readOnlyValue"]}

    assert {"hs_object_id", "createdate", "lastmodifieddate", "hs_is_enriched", "hs_additional_emails"} <= read_only
    assert not {"jobtitle", "hs_seniority", "phone", "city", "hs_linkedin_url"} & read_only
    assert [option["value"] for option in contacts["hs_seniority"]["options"]] == [
        "vp", "director", "entry", "executive", "manager", "owner", "partner", "senior", "employee",
    ]  # fmt: skip
    assert contacts["associatedcompanyid"]["referencedObjectType"] == "COMPANY"
    assert contacts["hubspot_owner_id"]["options"] == []
    assert contacts["email"]["hasUniqueValue"] is False


def test_archived_and_sensitive_properties_are_a_list_of_their_own() -> None:
    account = Account(20)

    archived = account.get("/crm/v3/properties/contacts", archived="true").json["results"]

    assert [each["name"] for each in archived] == ["legacy_code"]
    assert "legacy_code" not in described(account, "contacts")
    assert account.get("/crm/v3/properties/contacts", dataSensitivity="sensitive").json == {"results": []}
    assert account.get("/crm/v3/properties/contacts", dataSensitivity="secret").status_code == 400


def test_one_property_is_described_alone_and_a_missing_one_is_a_404() -> None:
    account = Account(20)

    assert account.get("/crm/v3/properties/companies/industry").json == described(account, "companies")["industry"]
    assert account.get("/crm/v3/properties/companies/no_such").status_code == 404


def test_every_value_the_world_gives_would_be_taken_back() -> None:
    account = Account(400)
    writable = {
        kind: [
            name for name, each in described(account, kind).items() if not each["modificationMetadata"]["readOnlyValue"]
        ]
        for kind in ("contacts", "companies")
    }

    for kind, id_of, count, path in (("contacts", contact_id, 100, CONTACTS), ("companies", company_id, 50, COMPANIES)):
        inputs = []
        for n in range(count):
            held = account.simulator.edit(kind, id_of(n), {})["properties"]
            kept = {name: held[name] for name in writable[kind] if held[name] is not None}
            inputs.append(an_input(id_of(n), **kept))
        answer = account.update(*inputs, path=path)
        assert answer.status_code == 200, answer.text
        assert len(answer.json["results"]) == count


def test_two_accounts_of_one_seed_hold_the_same() -> None:
    one, other = (Account(60, now=Clock()).get(CONTACTS, limit=60, properties="email,jobtitle").json for _ in range(2))

    assert one["results"] == other["results"]
