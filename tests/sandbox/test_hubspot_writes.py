"""Batch update, one by one, batch read, history, merging: every answer's fine print."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from crm_sync.sandbox.hubspot import SCOPES, Habits
from tests.sandbox.hubspot_account import COMPANIES, CONTACTS, Account, an_input, company_id, contact_id


def findings(message: str) -> list[dict[str, Any]]:
    """The JSON text inside an error's message."""
    found: list[dict[str, Any]] = json.loads(message.partition(": ")[2])
    return found


# --- a batch that is good


def test_a_batch_writes_each_record_and_answers_in_an_order_of_its_own() -> None:
    account = Account(150)
    ids = [contact_id(n) for n in range(100)]

    answer = account.update(*(an_input(each, jobtitle=f"Title {each}") for each in ids))

    assert answer.status_code == 200
    assert answer.json["status"] == "COMPLETE"
    told = {record["id"]: record for record in answer.json["results"]}
    assert sorted(told, key=int) == ids
    assert list(told) != ids
    assert told[ids[3]]["properties"]["jobtitle"] == f"Title {ids[3]}"
    assert told[ids[3]]["url"].endswith(f"/record/0-1/{ids[3]}")
    assert account.value(ids[99], "jobtitle") == f"Title {ids[99]}"
    assert account.simulator.state()["written"] == {"contacts": 100, "companies": 0}


def test_null_leaves_alone_and_an_empty_text_erases() -> None:
    account = Account(20)
    account.update(an_input(contact_id(0), jobtitle="CTO", city="Leeds"))

    account.update(an_input(contact_id(0), jobtitle=None, city=""))

    assert account.value(contact_id(0), "jobtitle") == "CTO"
    assert account.value(contact_id(0), "city") is None


def test_a_write_moves_the_modified_date() -> None:
    account = Account(20)

    answer = account.update(an_input(contact_id(0), jobtitle="CTO"))

    (record,) = answer.json["results"]
    assert record["updatedAt"] == record["properties"]["lastmodifieddate"] == "2026-11-02T12:00:00.000Z"
    assert record["createdAt"] < record["updatedAt"]


def test_the_lifecycle_stage_goes_forward_only_unless_it_was_cleared() -> None:
    account = Account(20)
    account.update(an_input(contact_id(0), lifecyclestage="customer"))

    back = account.update(an_input(contact_id(0), lifecyclestage="lead"))
    kept = account.value(contact_id(0), "lifecyclestage")
    account.update(an_input(contact_id(0), lifecyclestage=""))
    account.update(an_input(contact_id(0), lifecyclestage="lead"))

    assert (back.status_code, kept) == (200, "customer")
    assert account.value(contact_id(0), "lifecyclestage") == "lead"


# --- a batch that is refused as a whole


def test_one_bad_value_refuses_all_and_names_only_the_property() -> None:
    account = Account(20)
    inputs = [an_input(company_id(n), industry="Technology" if n else "RETAIL", city="Leeds") for n in range(3)]

    answer = account.update(*inputs, path=COMPANIES)

    assert answer.status_code == 400
    (finding,) = findings(answer.json["message"])
    assert (finding["name"], finding["error"], finding["isValid"]) == ("industry", "INVALID_OPTION", False)
    assert finding["message"].count("_") > 148
    assert answer.json["errors"][0]["context"]["propertyName"] == ["industry"]
    assert not any(company_id(n) in answer.text for n in range(3))
    assert account.simulator.state()["written"]["companies"] == 0


def test_findings_of_several_properties_stand_in_one_message() -> None:
    answer = Account(20).update(
        an_input(contact_id(0), no_such="x", createdate="2026-11-02", hs_seniority="boss", email="nobody")
    )

    codes = {finding["name"]: finding["error"] for finding in findings(answer.json["message"])}
    assert codes == {
        "no_such": "PROPERTY_DOESNT_EXIST",
        "createdate": "READ_ONLY_VALUE",
        "hs_seniority": "INVALID_OPTION",
        "email": "INVALID_EMAIL",
    }
    assert len(answer.json["errors"]) == 3


def test_the_same_record_twice_refuses_the_batch() -> None:
    account = Account(20)

    answer = account.update(
        an_input(contact_id(1), city="Leeds"), an_input(contact_id(0), city="Leeds"), an_input(contact_id(1), city="")
    )

    assert answer.status_code == 400
    assert answer.json["message"] == f"Duplicate IDs found in batch input: [{contact_id(1)}]"
    assert answer.json["context"]["ids"] == [contact_id(1)]
    assert account.simulator.state()["written"]["contacts"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [an_input(contact_id(n), city="Leeds") for n in range(101)]},
        {"inputs": []},
        {"inputs": [{"id": contact_id(0), "properties": {}}]},
        {"inputs": [{"id": contact_id(0)}]},
        {"inputs": [{"id": int(contact_id(0)), "properties": {"city": "Leeds"}}]},
        {"inputs": [{"id": contact_id(0), "properties": {"numemployees": 5}}]},
        {"inputs": [{"id": contact_id(0), "properties": {"city": ["Leeds"]}}]},
        {"inputs": [{**an_input(contact_id(0), city="Leeds"), "idProperty": "hs_object_id"}]},
        {"inputs": [{**an_input("a@b.test", city="Leeds"), "idProperty": "email"}]},
        {"inputs": [{**an_input(contact_id(0), city="Leeds"), "archived": False}]},
        {
            "inputs": [
                an_input(contact_id(0), city="Leeds", trace="t"),
                an_input(contact_id(1), city="Leeds", trace="t"),
            ]
        },
        {"records": []},
        [],
    ],
)
def test_a_malformed_batch_is_a_400_and_writes_nothing(body: Any) -> None:
    account = Account(150)

    answer = account.call("POST", f"{CONTACTS}/batch/update", json=body)

    assert answer.status_code == 400, answer.text
    assert answer.json["category"] == "VALIDATION_ERROR"
    assert account.simulator.state()["written"]["contacts"] == 0


def test_a_lock_refuses_the_batch_for_as_often_as_was_asked() -> None:
    account = Account(20)
    account.simulator.edit("contacts", contact_id(3), {"$lock": 1})
    batch = [an_input(contact_id(n), city="Leeds") for n in range(5)]

    locked, free = account.update(*batch), account.update(*batch)

    assert (locked.status_code, "category" in locked.json) == (423, False)
    assert free.status_code == 200


# --- trace ids


def test_with_trace_ids_only_the_bad_record_is_refused() -> None:
    account = Account(20)
    inputs = [an_input(contact_id(n), trace=f"t{n}", hs_seniority="boss" if n == 1 else "vp") for n in range(3)]

    answer = account.update(*inputs)

    assert answer.status_code == 207
    assert {record["id"]: record["objectWriteTraceId"] for record in answer.json["results"]} == {
        contact_id(0): "t0",
        contact_id(2): "t2",
    }
    (error,) = answer.json["errors"]
    assert (answer.json["numErrors"], error["category"]) == (1, "VALIDATION_ERROR")
    assert error["context"]["objectWriteTraceId"] == ["t1"]
    assert findings(error["message"])[0]["name"] == "hs_seniority"
    assert account.value(contact_id(0), "hs_seniority") == "vp"


@pytest.mark.parametrize("options", [{"trace_ids": False}, {"habits": Habits(trace_ids=False)}])
def test_where_trace_ids_do_not_work_the_batch_is_refused(options: dict[str, Any]) -> None:
    account = Account(20, **options)
    inputs = [an_input(contact_id(n), trace=f"t{n}", hs_seniority="boss" if n == 1 else "vp") for n in range(3)]

    answer = account.update(*inputs)

    assert answer.status_code == 400
    assert account.simulator.state()["written"]["contacts"] == 0


def test_a_trace_id_missing_on_one_input_refuses_the_batch_as_without() -> None:
    account = Account(20)

    answer = account.update(
        an_input(contact_id(0), trace="t0", city="Leeds"), an_input(contact_id(1), hs_seniority="boss")
    )

    assert answer.status_code == 400


# --- records that are gone


@pytest.mark.parametrize("traced", [True, False])
def test_a_vanished_record_is_just_missing_from_the_results(traced: bool) -> None:
    account = Account(20, variant="a")
    account.simulator.edit("contacts", contact_id(1), {"archived": True})
    ids = [contact_id(0), contact_id(1), "77"]

    answer = account.update(*(an_input(each, trace=each if traced else None, city="Leeds") for each in ids))

    assert answer.status_code == 200
    assert [record["id"] for record in answer.json["results"]] == [contact_id(0)]
    assert "errors" not in answer.json


def test_a_vanished_record_is_told_in_the_other_variant() -> None:
    account = Account(20, variant="b")
    account.simulator.edit("contacts", contact_id(1), {"archived": True})

    answer = account.update(*(an_input(each, city="Leeds") for each in (contact_id(0), contact_id(1), "77")))

    assert answer.status_code == 207
    assert [record["id"] for record in answer.json["results"]] == [contact_id(0)]
    (error,) = answer.json["errors"]
    assert (error["category"], error["context"]["ids"]) == ("OBJECT_NOT_FOUND", [contact_id(1), "77"])


def test_an_id_that_is_no_number_is_told_in_either_variant() -> None:
    for variant in ("a", "b"):
        answer = Account(20, variant=variant).update(an_input("abc", city="Leeds"))

        assert answer.status_code == 207
        assert answer.json["errors"][0]["context"]["ids"] == ["abc"]


def test_a_record_brought_back_from_the_bin_is_written_again() -> None:
    account = Account(20)
    account.simulator.edit("contacts", contact_id(1), {"archived": True})
    account.simulator.edit("contacts", contact_id(1), {"archived": False})

    answer = account.update(an_input(contact_id(1), city="Leeds"))

    assert [record["id"] for record in answer.json["results"]] == [contact_id(1)]


# --- one address, one contact


def test_an_address_of_another_contact_is_a_conflict() -> None:
    account = Account(60)
    taken = account.value(contact_id(0), "email")
    assert taken is not None

    one = account.call("PATCH", f"{CONTACTS}/{contact_id(1)}", json={"properties": {"email": taken.upper()}})
    batch = account.update(an_input(contact_id(1), email=taken), an_input(contact_id(2), city="Leeds"))
    own = account.update(an_input(contact_id(0), email=taken))

    assert (one.status_code, one.json["category"]) == (409, "CONFLICT")
    assert one.json["message"] == f"Contact already exists. Existing ID: {contact_id(0)}"
    assert batch.status_code == 409
    assert own.status_code == 200
    assert account.simulator.state()["written"]["contacts"] == 1


def test_no_two_contacts_of_a_portal_have_one_address() -> None:
    account = Account(1_500)

    emails = [account.simulator.edit("contacts", contact_id(n), {})["properties"]["email"] for n in range(1_500)]

    held = [email for email in emails if email]
    assert len(held) == len(set(held)) > 1_200
    assert all(email == email.lower() for email in held)


# --- batch read


def test_a_batch_read_tells_each_record_once_and_what_is_missing() -> None:
    account = Account(60)
    account.simulator.edit("contacts", contact_id(7), {"archived": True})
    ids = [contact_id(n) for n in range(20)]

    answer = account.read(*ids, "77", contact_id(0), properties=["jobtitle"])

    assert answer.status_code == 207
    found = [record["id"] for record in answer.json["results"]]
    assert sorted(found, key=int) == [each for n, each in enumerate(ids) if n != 7]
    assert found != sorted(found, key=int)
    assert answer.json["errors"][0]["context"]["ids"] == [contact_id(7), "77"]
    assert set(answer.json["results"][0]["properties"]) == {
        "jobtitle", "createdate", "hs_object_id", "lastmodifieddate",
    }  # fmt: skip


def test_contacts_are_read_by_address_and_by_nothing_else_that_is_not_unique() -> None:
    account = Account(60)
    email = account.value(contact_id(0), "email")
    assert email is not None

    found = account.read(email.upper(), idProperty="email")
    by_key = account.read("C-0000003", idProperty="external_key")
    refused = account.read("CTO", idProperty="jobtitle")

    assert [record["id"] for record in found.json["results"]] == [contact_id(0)]
    assert [record["id"] for record in by_key.json["results"]] == [contact_id(3)]
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("count", "more", "status"),
    [
        (100, {}, 200),
        (101, {}, 400),
        (50, {"propertiesWithHistory": ["jobtitle"]}, 200),
        (51, {"propertiesWithHistory": ["jobtitle"]}, 400),
        (1, {"associations": ["companies"]}, 400),
        (1, {"properties": "jobtitle"}, 400),
        (0, {}, 400),
    ],
)
def test_a_batch_read_keeps_to_its_caps(count: int, more: dict[str, Any], status: int) -> None:
    assert Account(150).read(*(contact_id(n) for n in range(count)), **more).status_code == status


# --- history


def test_history_tells_a_persons_edit_from_an_apps() -> None:
    account = Account(20)
    account.simulator.edit("contacts", contact_id(0), {"jobtitle": "Buyer EMEA"})
    account.clock.forward(60)
    account.update(an_input(contact_id(0), jobtitle="CTO"))

    answer = account.get(f"{CONTACTS}/{contact_id(0)}", propertiesWithHistory="jobtitle")

    versions = answer.json["propertiesWithHistory"]["jobtitle"]
    assert [(each["value"], each["sourceType"]) for each in versions[:2]] == [
        ("CTO", "INTEGRATION"),
        ("Buyer EMEA", "CRM_UI"),
    ]
    assert versions[0]["timestamp"] == "2026-11-02T12:01:00.000Z"
    assert "updatedByUserId" in versions[1]
    assert "updatedByUserId" not in versions[0]


@pytest.mark.parametrize(("path", "record_id", "kept"), [(CONTACTS, contact_id(0), 45), (COMPANIES, company_id(0), 20)])
def test_history_reaches_so_many_versions_back(path: str, record_id: str, kept: int) -> None:
    account = Account(20)
    for n in range(50):
        account.update(an_input(record_id, city=f"town {n}"), path=path)

    answer = account.get(f"{path}/{record_id}", propertiesWithHistory="city")

    versions = answer.json["propertiesWithHistory"]["city"]
    assert [each["value"] for each in versions] == [f"town {49 - n}" for n in range(kept)]


def test_history_tells_one_app_from_another() -> None:
    account = Account(20, more_tokens={"other-app": SCOPES})
    account.update(an_input(contact_id(0), region_note="ours"))
    account.token = "other-app"
    account.call("PATCH", f"{CONTACTS}/{contact_id(0)}", json={"properties": {"region_note": "theirs"}})

    answer = account.get(f"{CONTACTS}/{contact_id(0)}", propertiesWithHistory="region_note")

    versions = answer.json["propertiesWithHistory"]["region_note"]
    assert [each["value"] for each in versions] == ["theirs", "ours"]
    assert len({each["sourceId"] for each in versions}) == 2
    assert all(each["sourceId"].isdecimal() for each in versions)


def test_writing_the_value_that_is_there_makes_no_version() -> None:
    account = Account(20)
    for _ in range(3):
        account.update(an_input(contact_id(0), region_note="same"))

    answer = account.get(f"{CONTACTS}/{contact_id(0)}", propertiesWithHistory="region_note")

    assert len(answer.json["propertiesWithHistory"]["region_note"]) == 1


def test_by_variant_it_does_and_the_oldest_comes_first() -> None:
    account = Account(20, variant="b")
    for text in ("first", "same", "same", ""):
        account.clock.forward(1)
        account.update(an_input(contact_id(0), region_note=text))

    answer = account.read(contact_id(0), propertiesWithHistory=["region_note"])

    versions = answer.json["results"][0]["propertiesWithHistory"]["region_note"]
    assert [each["value"] for each in versions] == ["first", "same", "same", ""]


# --- merging


def test_merging_makes_a_third_record_that_both_old_ids_lead_to() -> None:
    account = Account(20)
    account.simulator.edit("contacts", contact_id(3), {"jobtitle": "", "region_note": "from the other"})
    account.simulator.edit("contacts", contact_id(8), {"jobtitle": "CTO", "region_note": ""})

    new_id = account.simulator.edit("contacts", contact_id(3), {"merge_into": contact_id(8)})["id"]

    read = account.read(contact_id(3), contact_id(8), properties=["jobtitle", "region_note", "hs_merged_object_ids"])
    assert new_id not in (contact_id(3), contact_id(8))
    assert int(new_id) > int(contact_id(19))
    assert [record["id"] for record in read.json["results"]] == [new_id]
    held = read.json["results"][0]["properties"]
    assert (held["jobtitle"], held["region_note"]) == ("CTO", "from the other")
    assert set(held["hs_merged_object_ids"].split(";")) == {contact_id(3), contact_id(8)}
    assert account.get(f"{CONTACTS}/{contact_id(3)}").json["id"] == new_id


def test_a_chain_of_merges_leads_to_its_end() -> None:
    account = Account(20)
    first = account.simulator.edit("contacts", contact_id(1), {"merge_into": contact_id(2)})["id"]

    last = account.simulator.edit("contacts", contact_id(3), {"merge_into": first})["id"]

    assert [record["id"] for record in account.read(contact_id(1), first).json["results"]] == [last]


def test_a_write_under_an_old_id_reaches_the_new_record_or_nothing_by_variant() -> None:
    following, vanishing = Account(20, variant="a"), Account(20, variant="b")
    ids = [account.simulator.edit("contacts", contact_id(3), {"merge_into": contact_id(8)})["id"]
           for account in (following, vanishing)]  # fmt: skip

    followed = following.update(an_input(contact_id(3), city="Leeds"))
    vanished = vanishing.update(an_input(contact_id(3), city="Leeds"))
    both = following.update(an_input(contact_id(3), city="Leeds"), an_input(contact_id(8), city="Lyon"))

    assert [record["id"] for record in followed.json["results"]] == ids[:1]
    assert (vanished.status_code, vanished.json["results"]) == (207, [])
    assert (both.status_code, set(both.json["context"]["ids"])) == (400, {contact_id(3), contact_id(8)})


def test_a_merged_company_is_what_its_contacts_point_at() -> None:
    account = Account(80)
    before = account.value(contact_id(0), "associatedcompanyid")
    assert before is not None
    other = company_id(9) if before != company_id(9) else company_id(8)

    new_id = account.simulator.edit("companies", before, {"merge_into": other})["id"]

    assert account.value(contact_id(0), "associatedcompanyid") == new_id


# --- one record


def test_a_patch_writes_one_and_says_what_is_wrong() -> None:
    account = Account(20)

    good = account.call("PATCH", f"{CONTACTS}/{contact_id(0)}", json={"properties": {"jobtitle": "CTO"}})
    bad = account.call("PATCH", f"{CONTACTS}/{contact_id(0)}", json={"properties": {"hs_seniority": "boss"}})
    gone = account.call("PATCH", f"{CONTACTS}/77", json={"properties": {"jobtitle": "CTO"}})
    empty = account.call("PATCH", f"{CONTACTS}/{contact_id(0)}", json={"properties": {}})

    assert (good.status_code, good.json["properties"]["jobtitle"]) == (200, "CTO")
    assert (bad.status_code, gone.status_code, empty.status_code) == (400, 404, 400)


# --- a person's edit


@pytest.mark.parametrize(
    ("object_type", "record_id", "fields", "said"),
    [
        ("deals", contact_id(0), {}, "deals"),
        ("contacts", "77", {}, "77"),
        ("contacts", contact_id(0), {"no_such": "x"}, "no_such"),
        ("contacts", contact_id(0), {"hs_seniority": "boss"}, "boss"),
        ("contacts", contact_id(0), {"hs_object_id": "5"}, "hs_object_id"),
        ("contacts", contact_id(0), {"jobtitle": 5}, "jobtitle"),
        ("contacts", contact_id(0), {"merge_into": contact_id(0)}, contact_id(0)),
        ("contacts", contact_id(0), {"merge_into": "77"}, "77"),
    ],
)
def test_a_persons_edit_that_cannot_be_is_refused_by_name(
    object_type: str, record_id: str, fields: dict[str, Any], said: str
) -> None:
    account = Account(20)

    with pytest.raises(ValueError, match=said):
        account.simulator.edit(object_type, record_id, fields)

    assert account.simulator.state()["written"]["contacts"] == 0


def test_an_edit_of_nothing_shows_the_record_and_the_state_is_json() -> None:
    account = Account(20)
    account.update(an_input(contact_id(0), jobtitle="CTO"))

    shown = account.simulator.edit("contacts", contact_id(0), {})

    assert (shown["id"], shown["properties"]["jobtitle"], shown["archived"]) == (contact_id(0), "CTO", False)
    assert shown["history"]["jobtitle"][0]["sourceType"] == "INTEGRATION"
    assert orjson.loads(orjson.dumps(account.simulator.state()))["touched"]["contacts"] == {
        contact_id(0): {"jobtitle": "CTO"}
    }
