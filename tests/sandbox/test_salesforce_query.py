"""Queries over the org: conditions, order, pages, and what is refused."""

from __future__ import annotations

import pytest

from crm_sync.sandbox.salesforce import ids
from tests.sandbox.salesforce_org import ROOT, OrgClient, account_id, contact_id, lead_id


@pytest.fixture(scope="module")
def org() -> OrgClient:
    """Read only: no test of this module writes."""
    return OrgClient(contacts=400)


def titles(org: OrgClient, condition: str) -> list[str | None]:
    return [row["Title"] for row in org.rows(f"SELECT Title FROM Contact WHERE {condition} ORDER BY Id")]


def everything(org: OrgClient, field: str) -> list[object]:
    return [row[field] for row in org.rows(f"SELECT {field} FROM Contact ORDER BY Id")]


def test_a_row_has_its_attributes_first_and_fields_as_selected(org: OrgClient) -> None:
    row = org.rows(f"SELECT lastname, account.website, Id FROM Contact WHERE Id = '{contact_id(3)}'")[0]

    person = org.world.contact(3)
    assert list(row) == ["attributes", "LastName", "Account", "Id"]
    assert row["attributes"] == {"type": "Contact", "url": f"{ROOT}/sobjects/Contact/{contact_id(3)}"}
    assert row["LastName"] == person.last_name
    assert row["Account"] == {
        "attributes": {"type": "Account", "url": f"{ROOT}/sobjects/Account/{account_id(person.company)}"},
        "Website": org.world.account(person.company).website or None,
    }


def test_a_contact_without_an_account_has_no_parent(org: OrgClient) -> None:
    lonely = org.rows("SELECT Account.Name, AccountId FROM Contact WHERE AccountId = null")

    assert lonely
    assert all(row["Account"] is None and row["AccountId"] is None for row in lonely)


def test_keyset_reading_meets_every_record_once(org: OrgClient) -> None:
    seen: list[str] = []
    last = ""
    while True:
        after = f"WHERE Id > '{last}' " if last else ""
        page = org.rows(f"SELECT Id FROM Contact {after}ORDER BY Id LIMIT 150")
        if not page:
            break
        seen += [row["Id"] for row in page]
        last = seen[-1]

    assert seen == [contact_id(index) for index in range(400)]


def test_without_an_order_a_limited_read_does_not_begin_at_the_start(org: OrgClient) -> None:
    assert org.rows("SELECT Id FROM Contact LIMIT 1")[0]["Id"] != contact_id(0)


@pytest.mark.parametrize(
    ("condition", "indexes"),
    [
        ("Id >= '{1}' AND Id < '{4}'", [1, 2, 3]),
        ("Id > '{397}'", [398, 399]),
        ("Id <= '{0}'", [0]),
        ("Id IN ('{5}', '{2}', '{5}') AND Id != '{2}'", [5]),
        ("Id = '{7}' OR Id = '{9}'", [7, 9]),
        ("NOT Id > '{1}'", [0, 1]),
        ("Id = '{short}'", [8]),
        ("Id = '{foreign}'", []),
        ("Id > '{account}' AND Id < '{2}'", [0, 1]),
        ("Id > '{beyond}'", []),
    ],
)
def test_conditions_on_the_id_pick_those_records(org: OrgClient, condition: str, indexes: list[int]) -> None:
    names = {str(index): contact_id(index) for index in range(400)}
    names |= {"short": contact_id(8)[:15], "foreign": "0035500001H9cakAAB", "account": account_id(3)}
    names["beyond"] = contact_id(400)
    for key, value in names.items():
        condition = condition.replace(f"{{{key}}}", value)

    rows = org.rows(f"SELECT Id FROM Contact WHERE {condition} ORDER BY Id")

    assert [ids.number(row["Id"][:15]) for row in rows] == indexes


def test_text_compares_without_case_and_blank_is_null(org: OrgClient) -> None:
    all_titles = everything(org, "Title")
    word = next(title for title in all_titles if isinstance(title, str) and title.upper() != title)

    assert titles(org, f"Title = '{word.upper()}'") == [t for t in all_titles if str(t).lower() == word.lower()]
    assert titles(org, "Title = ''") == titles(org, "Title = null") == [None] * all_titles.count(None)


def test_unequal_and_not_in_hold_for_null_as_in_soql(org: OrgClient) -> None:
    word = next(title for title in everything(org, "Title") if isinstance(title, str))

    assert None in titles(org, f"Title != '{word}'")
    assert None in titles(org, f"Title NOT IN ('{word}')")
    assert None not in titles(org, f"Title NOT IN ('{word}', null)")


def test_like_knows_its_wildcards_and_their_escapes(org: OrgClient) -> None:
    names = everything(org, "LastName")

    found = org.rows("SELECT LastName FROM Contact WHERE LastName LIKE '%A_' ORDER BY Id")

    assert [row["LastName"] for row in found] == [name for name in names if str(name)[-2:-1].lower() == "a"]
    assert org.rows(r"SELECT Id FROM Contact WHERE LastName LIKE '\%'") == []


def test_placeholders_are_found_among_blanks(org: OrgClient) -> None:
    found = titles(org, "(Title = null OR Title IN ('[[unknown]]', 'n/a', '-')) AND AccountId != null")

    assert set(found) == {None, "[[unknown]]", "n/a", "-"}


def test_parents_are_filtered_and_sorted_by(org: OrgClient) -> None:
    rows = org.rows(
        "SELECT Account.Name FROM Contact WHERE Account.Website LIKE 'http%' ORDER BY Account.Name DESC, Id LIMIT 50"
    )

    names = [row["Account"]["Name"] for row in rows]
    assert names == sorted(names, key=str.lower, reverse=True)
    assert len(set(names)) > 5


def test_nulls_come_first_unless_told_otherwise(org: OrgClient) -> None:
    first = org.rows("SELECT MailingCity FROM Contact ORDER BY MailingCity DESC LIMIT 1")
    last = org.rows("SELECT MailingCity FROM Contact ORDER BY MailingCity NULLS LAST LIMIT 1")

    assert first[0]["MailingCity"] is None
    assert last[0]["MailingCity"] == min(
        (city for city in everything(org, "MailingCity") if city), key=lambda city: str(city).lower()
    )


def test_dates_compare_with_literals_and_ranges(org: OrgClient) -> None:
    created = sorted(str(moment) for moment in everything(org, "CreatedDate"))
    middle = created[200].replace(".000+0000", "Z")

    assert len(org.rows(f"SELECT Id FROM Contact WHERE CreatedDate < {middle}")) == 200
    assert len(org.rows(f"SELECT Id FROM Contact WHERE CreatedDate >= {middle}")) == 200
    assert len(org.rows(f"SELECT Id FROM Contact WHERE CreatedDate = {middle}")) == 1
    assert org.rows("SELECT Id FROM Contact WHERE CreatedDate = TODAY") == []
    assert len(org.rows("SELECT Id FROM Contact WHERE CreatedDate < LAST_N_DAYS:120")) == 400
    assert len(org.rows("SELECT Id FROM Contact WHERE Apollo_Enriched_At__c < LAST_N_DAYS:120")) == 0


def test_numbers_and_checkboxes_compare_as_such(org: OrgClient) -> None:
    big = org.rows("SELECT NumberOfEmployees FROM Account WHERE NumberOfEmployees > 100")
    unknown = org.rows("SELECT Id FROM Account WHERE NumberOfEmployees = null")
    out = org.rows("SELECT HasOptedOutOfEmail FROM Contact WHERE HasOptedOutOfEmail = TRUE")

    assert big
    assert all(row["NumberOfEmployees"] > 100 for row in big)
    assert 0 < len(unknown) < 50
    assert out
    assert all(row["HasOptedOutOfEmail"] is True for row in out)


def test_count_answers_no_records(org: OrgClient) -> None:
    answer = org.query("SELECT COUNT() FROM Contact WHERE Title = null").json

    assert answer == {"totalSize": everything(org, "Title").count(None), "done": True, "records": []}


def test_pages_are_relative_repeatable_and_complete() -> None:
    org = OrgClient(contacts=2100)

    first = org.query("SELECT Id FROM Contact ORDER BY Id").json
    second = org.call("GET", first["nextRecordsUrl"]).json
    again = org.call("GET", first["nextRecordsUrl"]).json

    assert (first["totalSize"], first["done"], len(first["records"])) == (2100, False, 2000)
    assert first["nextRecordsUrl"].startswith(f"{ROOT}/query/0r8")
    assert first["nextRecordsUrl"].endswith("-2000")
    assert (second["totalSize"], second["done"], len(second["records"])) == (2100, True, 100)
    assert "nextRecordsUrl" not in second
    assert again == second
    assert [row["Id"] for row in first["records"] + second["records"]] == [contact_id(i) for i in range(2100)]


def test_a_smaller_page_can_be_asked_for_and_an_unreadable_wish_is_refused() -> None:
    org = OrgClient(contacts=700)

    pages = [org.query("SELECT Id FROM Contact", headers={"Sforce-Query-Options": "batchSize=250"}).json]
    while not pages[-1]["done"]:
        pages.append(org.call("GET", pages[-1]["nextRecordsUrl"]).json)
    tiny = org.query("SELECT Id FROM Contact", headers={"Sforce-Query-Options": "batchSize=3"}).json
    refused = org.query("SELECT Id FROM Contact", headers={"Sforce-Query-Options": "many"})

    assert [len(page["records"]) for page in pages] == [250, 250, 200]
    assert len({row["Id"] for page in pages for row in page["records"]}) == 700
    assert len(tiny["records"]) == 200
    assert refused.status_code == 400


def test_a_locator_dies_after_two_days_and_a_made_up_one_never_lived() -> None:
    org = OrgClient(contacts=2100, token_seconds=10**9)
    url = org.query("SELECT Id FROM Contact").json["nextRecordsUrl"]

    org.clock.seconds += 2 * 86_400 + 1

    for dead in (url, url.replace("-2000", "-1999"), f"{ROOT}/query/0r8000000000001AAA-2000"):
        answer = org.call("GET", dead)
        assert (answer.status_code, answer.json[0]["errorCode"]) == (400, "INVALID_QUERY_LOCATOR")


def test_a_record_deleted_between_pages_is_missing_from_the_later_one() -> None:
    org = OrgClient(contacts=2100)
    first = org.query("SELECT Id FROM Contact ORDER BY Id").json

    org.simulator.edit("Contact", contact_id(2050), {"IsDeleted": True})

    later = org.call("GET", first["nextRecordsUrl"]).json["records"]
    assert contact_id(2050) not in [row["Id"] for row in later]
    assert len(later) == 99


def test_deleted_records_show_only_in_query_all() -> None:
    org = OrgClient(contacts=50)
    org.simulator.edit("Contact", contact_id(4), {"MasterRecordId": contact_id(5)})
    soql = f"SELECT Id, IsDeleted, MasterRecordId FROM Contact WHERE Id = '{contact_id(4)}'"

    assert org.rows(soql) == []
    row = org.rows(soql, all_rows=True)[0]
    assert (row["IsDeleted"], row["MasterRecordId"]) == (True, contact_id(5))


def test_queries_see_what_was_written_through_parents_too() -> None:
    org = OrgClient(contacts=50)
    company = org.world.contact(0).company
    org.simulator.edit("Account", account_id(company), {"Website": "https://new.example"})
    org.simulator.edit("Contact", contact_id(1), {"AccountId": account_id(company), "Title": "Moved"})

    rows = org.rows("SELECT Id, Title, Account.Website FROM Contact WHERE Account.Website = 'https://new.example'")

    assert {row["Id"] for row in rows} >= {contact_id(0), contact_id(1)}
    assert [row["Title"] for row in rows if row["Id"] == contact_id(1)] == ["Moved"]


def test_leads_that_were_converted_name_what_they_became(org: OrgClient) -> None:
    leads = org.rows(
        "SELECT LastName, ConvertedContactId, ConvertedContact.LastName FROM Lead WHERE IsConverted = true ORDER BY Id"
    )

    assert leads
    assert all(row["LastName"] == row["ConvertedContact"]["LastName"] for row in leads)
    assert org.rows(f"SELECT ConvertedContactId FROM Lead WHERE Id = '{lead_id(0)}'")[0]["ConvertedContactId"] is None


@pytest.mark.parametrize(
    ("soql", "code", "words"),
    [
        ("SELECT Nonsense FROM Contact", "INVALID_FIELD", "No such column 'Nonsense' on entity 'Contact'"),
        ("SELECT Id FROM Contact WHERE Nonsense = 1", "INVALID_FIELD", "No such column"),
        ("SELECT Id FROM Contact ORDER BY Nonsense", "INVALID_FIELD", "No such column"),
        ("SELECT Account.Nonsense FROM Contact", "INVALID_FIELD", "on entity 'Account'"),
        ("SELECT Nobody.Name FROM Contact", "INVALID_FIELD", "Didn't understand relationship 'Nobody'"),
        ("SELECT Owner.Name FROM Contact", "MALFORMED_QUERY", "does not simulate the parent Contact.Owner"),
        ("SELECT Id FROM Opportunity", "INVALID_TYPE", "sObject type 'Opportunity' is not supported"),
        ("SELECT Id FROM Contact WHERE Description = 'x'", "INVALID_FIELD", "can not be filtered"),
        ("SELECT Id FROM Contact ORDER BY Description", "INVALID_FIELD", "can not be sorted"),
        ("SELECT Id, id FROM Contact", "MALFORMED_QUERY", "duplicate field selected"),
        ("SELECT Id FROM Account WHERE NumberOfEmployees = '5'", "INVALID_FIELD", "must be of type int"),
        ("SELECT Id FROM Account WHERE NumberOfEmployees = 5.5", "INVALID_FIELD", "must be of type int"),
        ("SELECT Id FROM Contact WHERE Title = 5", "INVALID_FIELD", "should be enclosed in quotes"),
        ("SELECT Id FROM Contact WHERE CreatedDate > '2026-01-01T00:00:00Z'", "INVALID_FIELD", "type dateTime"),
        ("SELECT Id FROM Contact WHERE CreatedDate > 2026-01-01", "INVALID_FIELD", "type dateTime"),
        ("SELECT Id FROM Contact WHERE DoNotCall = 'true'", "INVALID_FIELD", "type boolean"),
        ("SELECT Id FROM Contact WHERE DoNotCall > true", "INVALID_QUERY_FILTER_OPERATOR", "boolean"),
        ("SELECT Id FROM Contact WHERE Id > ''", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field"),
        ("SELECT Id FROM Contact WHERE AccountId = 'acme'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field"),
        ("SELECT Id FROM Contact WHERE Id LIKE '003%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator"),
        ("SELECT Id FROM Contact WHERE MailingAddress = null", "MALFORMED_QUERY", "does not simulate"),
        ("SELECT Id FROM Contact WHERE Title = 'a' AND Title = 'b' OR Title = 'c'", "MALFORMED_QUERY", "'OR'"),
    ],
)
def test_a_bad_query_is_refused_whole(org: OrgClient, soql: str, code: str, words: str) -> None:
    answer = org.query(soql)

    assert answer.status_code == 400
    assert answer.json[0]["errorCode"] == code
    assert words in answer.json[0]["message"]


def test_hidden_fields_do_not_exist_in_queries() -> None:
    org = OrgClient(contacts=50, hidden={"Contact": ["HasOptedOutOfEmail"]})

    answer = org.query("SELECT Id FROM Contact WHERE HasOptedOutOfEmail = true")

    assert answer.json[0]["errorCode"] == "INVALID_FIELD"


def test_a_query_too_long_for_a_url_is_turned_away_at_the_edge(org: OrgClient) -> None:
    short = org.query("SELECT Id FROM Contact WHERE Id IN (" + ",".join([f"'{contact_id(1)}'"] * 300) + ")")
    long = org.query("SELECT Id FROM Contact WHERE Id IN (" + ",".join([f"'{contact_id(1)}'"] * 800) + ")")

    assert short.status_code == 200
    assert (long.status_code, long.mimetype) == (414, "text/html")
