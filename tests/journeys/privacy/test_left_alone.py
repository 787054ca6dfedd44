"""Who must be left alone is neither asked for nor written, whatever says so, and whenever it is said."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from crm_sync.domain.runs import RunStatus
from crm_sync.pipeline import suppress
from crm_sync.sandbox.run import Sandbox
from tests.journeys.privacy.office import PrivacyOffice, all_columns, raw_bytes

COMPANIES = {"salesforce": "accounts", "hubspot": "companies"}


def test_suppressed_people_are_never_sent_to_apollo_and_the_books_balance(every_office: PrivacyOffice) -> None:
    office = every_office
    by_mail, by_domain, by_page, by_phone, by_record = (office.person(index) for index in (0, 1, 2, 3, 4))
    domain = office.sandbox.world.company(by_domain.company).domain
    colleagues = [i for i in range(60) if office.person(i).company == by_domain.company]
    office.edit(2, {office.name("linkedin"): f"https://www.linkedin.com/in/{by_page.linkedin_slug}/"})
    office.edit(3, {office.name("phone"): "+49 (0)30 1234-567"})
    for words in (
        ("email", by_mail.email.upper()),
        ("domain", f"https://www.{domain}/about"),
        ("linkedin", f"uk.linkedin.com/in/{by_page.linkedin_slug}"),
        ("phone", "0049 30 1234567"),
        ("record", office.id_of(4)[:15] if office.crm == "salesforce" else f"hubspot:contacts:{office.id_of(4)}"),
    ):
        assert office.command("suppress", "add", *words).exit_code == 0

    run = office.walk()

    assert run.status is RunStatus.COMPLETED
    assert run.counts.balanced
    assert run.left_out == {
        "do not enrich: suppressed e-mail": 1,
        "do not enrich: suppressed domain": len(colleagues),
        "do not enrich: suppressed LinkedIn page": 1,
        "do not enrich: suppressed phone": 1,
        "do not enrich: suppressed record": 1,
    }
    assert run.counts.selected == 60 - sum(run.left_out.values())
    assert not office.has_asked_for(by_mail.email, by_page.email, by_phone.email, by_record.email, domain)
    for index in (0, 2, 3, 4, *colleagues):
        assert not office.value(index, office.name("title"))
    assert {record.record_id for record in office.app.runs.records(run.id)}.isdisjoint(
        office.id_of(index) for index in (0, 2, 3, 4, *colleagues)
    )


def test_nobody_is_due_again_and_again_and_everybody_is_at_once_when_taken_off(office: PrivacyOffice) -> None:
    address = office.person(0).email
    office.command("suppress", "add", address)
    office.walk()

    still = office.walk()
    office.command("suppress", "remove", address)
    after = office.walk()

    assert still.counts.selected == 0
    assert still.left_out["do not enrich: suppressed e-mail"] == 1
    assert after.counts.selected == after.counts.updated == 1
    assert office.value(0, office.name("title"))


def test_a_suppressed_domain_keeps_the_company_from_being_looked_up_or_filled(office: PrivacyOffice) -> None:
    company = office.sandbox.world.company(0)
    office.command("suppress", "add", company.domain)

    run = office.walk(COMPANIES[office.crm])

    assert run.left_out == {"do not enrich: suppressed domain": 1}
    assert not office.has_asked_for(company.domain)


def test_free_mail_domains_leave_out_people_and_not_companies(office: PrivacyOffice) -> None:
    company = office.sandbox.world.company(office.person(0).company)
    colleagues = [i for i in range(60) if office.person(i).company == company.index]
    office.with_suppress(f"{{email_domains: [{company.domain}]}}")

    people = office.walk()
    asked_for_people = office.has_asked_for(office.person(0).email)
    companies = office.walk(COMPANIES[office.crm])

    assert people.left_out == {f"do not enrich: e-mail at {company.domain}": len(colleagues)}
    assert not asked_for_people
    assert companies.left_out == {}
    assert office.has_asked_for(company.domain)


def test_the_crms_own_opt_out_is_honoured(every_office: PrivacyOffice) -> None:
    office = every_office
    field = {"salesforce": "HasOptedOutOfEmail", "hubspot": "hs_contact_enrichment_opt_out"}[office.crm]
    office.edit(5, {field: "true" if office.crm == "hubspot" else True})

    run = office.walk()

    assert sum(run.left_out.values()) == 1
    assert field in next(iter(run.left_out))
    assert not office.has_asked_for(office.person(5).email)
    assert not office.value(5, office.name("title"))


def test_an_admin_may_enrich_who_only_opted_out_of_mail_in_salesforce(one_office: PrivacyOffice) -> None:
    office = one_office
    office.edit(5, {"HasOptedOutOfEmail": True})
    office.with_suppress("{email_opt_out: enrich}")

    run = office.walk()

    assert run.left_out == {}
    assert run.counts.updated == 60


def test_a_condition_on_fields_holds_where_the_object_has_them(office: PrivacyOffice) -> None:
    title = office.name("title")
    office.with_suppress(f'{{when: ["{title} = do not touch", "Nowhere__c = true"]}}')
    office.edit(6, {title: "DO NOT TOUCH "})

    run, companies = office.walk(), office.walk(COMPANIES[office.crm])

    assert run.left_out == {f"do not enrich: {title} = do not touch": 1}
    assert not office.has_asked_for(office.person(6).email)
    assert companies.counts.updated


@pytest.mark.parametrize("way", ["suppressed", "opted out", "condition"])
def test_who_says_no_between_the_reading_and_the_write_is_not_written(every_office: PrivacyOffice, way: str) -> None:
    office = every_office
    title, last = office.name("title"), {"salesforce": "Department", "hubspot": "department"}[office.crm]
    field = {"salesforce": "HasOptedOutOfEmail", "hubspot": "hs_contact_enrichment_opt_out"}[office.crm]
    office.with_suppress(f'{{when: ["{last} = stop"]}}')
    client = office.app.crm(office.crm, office.crm)
    read = client.read

    def read_after_the_no(*arguments: object) -> object:
        if way == "suppressed":
            assert office.command("suppress", "add", office.person(7).email).exit_code == 0
        elif way == "opted out":
            office.edit(7, {field: "true" if office.crm == "hubspot" else True})
        else:
            office.edit(7, {last: "Stop"})
        return read(*arguments)  # type: ignore[arg-type]

    client.read = read_after_the_no  # type: ignore[method-assign]
    run = office.walk()

    assert run.counts.balanced
    assert run.counts.updated == 59
    assert run.counts.skipped == 1
    assert [reason.partition(":")[0] for reason in office.reasons(run.id)] == ["do not enrich"]
    assert not office.value(7, title)


def test_a_suppression_during_a_run_holds_back_calls_that_have_not_left(
    office: PrivacyOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppress, "_LOOK_EVERY_S", 0.0)
    office.apply(re.sub(r"workers: \d+", "workers: 1", office.text))
    service = office.sandbox.apps["apollo"].view_functions
    bulk = service["bulk_match"]
    late = office.person(59)

    def slow() -> object:
        if len(office.asked) <= 1:
            office.command("suppress", "add", late.email)
            time.sleep(0.05)
        return bulk()

    service["bulk_match"] = slow

    run = office.walk()

    assert run.counts.balanced
    assert run.counts.skipped == 1
    assert run.counts.updated == 59
    assert not office.has_asked_for(late.email)
    assert office.reasons(run.id) == {"not asked: do not enrich: suppressed e-mail": 1}
    assert run.credits == 59


def test_somebody_who_comes_back_under_another_key_is_not_written(office: PrivacyOffice) -> None:
    person = office.person(8)
    office.edit(8, {office.name("email"): None if office.crm == "salesforce" else ""})  # asked for by name and company
    office.command("suppress", "add", person.email)

    run = office.walk()

    assert run.counts.balanced
    assert office.reasons(run.id) == {"do not enrich: suppressed e-mail": 1}
    assert not office.value(8, office.name("title"))


def test_a_suppressed_company_record_is_not_filled_from_its_people(office: PrivacyOffice) -> None:
    parent = {"salesforce": "Account", "hubspot": "companies"}[office.crm]
    via = {"salesforce": "AccountId", "hubspot": "associatedcompanyid"}[office.crm]
    city = {"salesforce": "BillingCity", "hubspot": "city"}[office.crm]
    section = f"    account: {{via: {via}, fields: {{{city}: organization.city}}}}\n"
    office.apply(re.sub(r"(  contacts:\n    crm: .*\n    object: .*\n)", rf"\1{section}", office.text, count=1))
    record = office.record(0)
    account = record.get("properties", record)[via]
    office.command("suppress", "add", "record", f"{office.crm}:{parent}:{account}")

    run = office.walk()

    assert run.parents.skipped == 1
    assert run.parents.updated > 0
    assert run.counts.updated == 60


def test_lists_are_imported_when_applied_and_replace_what_they_gave_before(office: PrivacyOffice) -> None:
    (office.folder / "crm_sync.yaml").write_text(f"{office.text}\nsuppress: {{lists: [no.csv]}}\n")
    one, two = office.person(0).email, office.person(1).email
    (office.folder / "no.csv").write_text(f"E-Mail;Name\n{one};Somebody\n;Nobody\n")

    first = office.command("config", "apply", "--offline")
    (office.folder / "no.csv").write_text(f"E-Mail;Name\n{two};Somebody\n")
    second = office.command("config", "apply", "--offline")
    run = office.walk()

    assert first.exit_code == second.exit_code == 0, first.output
    assert "no.csv:3:1: warning: nothing here is an e-mail" in first.output
    assert "1 new, 0 taken off" in first.output
    assert "1 new, 1 taken off" in second.output
    assert run.left_out == {"do not enrich: suppressed e-mail": 1}
    assert not office.has_asked_for(two)
    assert office.has_asked_for(one)
    (office.folder / "crm_sync.yaml").write_text(office.text)
    third = office.command("config", "apply", "--offline")
    assert "no.csv is no longer listed: 1 taken off." in third.output
    assert office.json("suppress", "list", "--json") == []


def test_a_list_leaves_no_address_in_the_database_or_in_any_output(office: PrivacyOffice) -> None:
    address = "somebody.special@elsewhere.example"
    (office.folder / "crm_sync.yaml").write_text(f"{office.text}\nsuppress: {{lists: [no.csv]}}\n")
    (office.folder / "no.csv").write_text(f"email\n{address}\nnot-an-address-at-all {address[:8]}\n")

    applied = office.command("config", "apply", "--offline")
    checked = office.command("suppress", "check", address)
    listed = office.command("suppress", "list")

    assert "Left alone by its email: the list no.csv" in checked.output
    for output in (applied.output, checked.output, listed.output):
        assert "somebody" not in output
    assert not any(b"somebody" in content for content in all_columns(office.app.store).values())
    assert b"somebody" not in raw_bytes(office.app.store)


@pytest.mark.parametrize("content", [None, "Böse <böse@x.example>".encode("latin-1"), b'a@b.example\n"c@d.example\n'])
def test_a_list_that_cannot_be_read_keeps_the_configuration_from_being_applied(
    one_office: PrivacyOffice, content: bytes | None
) -> None:
    office = one_office
    (office.folder / "crm_sync.yaml").write_text(f"{office.text}\nsuppress: {{lists: [no.csv]}}\n")
    if content is not None:
        (office.folder / "no.csv").write_bytes(content)

    result = office.command("config", "apply", "--offline")

    assert result.exit_code == 2
    assert "no.csv" in result.output
    assert "@" not in result.output
    assert office.json("suppress", "list", "--json") == []


@pytest.mark.parametrize("field", ["HasOptedOutProcessing", "ShouldForget"])
def test_the_individual_behind_a_salesforce_contact_is_asked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    from crm_sync.sandbox.salesforce import ids

    def individual(index: int) -> str:
        return ids.encode("0PK", index)

    options = {"contacts": 60, "tidy": True, "unlimited": True, "salesforce_options": {"individuals": True}}
    with Sandbox(**options) as sandbox:
        office = PrivacyOffice(sandbox, "salesforce", f"sqlite:///{tmp_path}/crm_sync.db", monkeypatch, tmp_path)
        org = sandbox.apps["salesforce"].extensions["simulator"]
        for index in (3, 4, 5):
            office.edit(index, {"IndividualId": individual(index)})
        org.edit("Individual", individual(3), {field: True})
        client = office.app.crm("salesforce", "salesforce")
        read = client.read

        def read_after_the_no(*arguments: object) -> object:
            org.edit("Individual", individual(4), {field: True})
            return read(*arguments)  # type: ignore[arg-type]

        client.read = read_after_the_no  # type: ignore[method-assign]

        run = office.walk()
        office.app.close()

    words = {"HasOptedOutProcessing": "Don't Process", "ShouldForget": "Forget this Individual"}[field]
    said = f"do not enrich: {words} (Individual.{field})"
    assert run.left_out == {said: 1}
    assert not office.has_asked_for(office.person(3).email)
    assert run.counts.skipped == 1
    assert run.counts.updated == 58


def test_a_version_that_is_rolled_back_to_takes_its_lists_as_they_are_now(one_office: PrivacyOffice) -> None:
    office = one_office
    listed = f"{office.text}\nsuppress: {{lists: [no.csv]}}\n"
    file, people = office.folder / "crm_sync.yaml", office.folder / "no.csv"
    file.write_text(listed)
    people.write_text("a@x.example\n")
    office.command("config", "apply", "--offline")
    file.write_text(office.text)
    office.command("config", "apply", "--offline")

    people.unlink()
    refused = office.command("config", "rollback", "2", "--yes")
    people.write_text("b@x.example\n")
    back = office.command("config", "rollback", "2", "--yes")
    people.unlink()
    kept = office.command("config", "rollback", "1", "--yes")
    again = office.command("config", "rollback", "2", "--yes")

    assert refused.exit_code == 2
    assert "The list no.csv cannot be read, and nothing of it is in the database" in refused.output
    assert "no.csv: 1 to leave alone (1 email); 1 new, 0 taken off." in back.output
    assert office.json("suppress", "list", "--json") == []
    assert "no.csv is no longer listed" in kept.output
    assert again.exit_code == 2


def test_a_dry_run_of_apply_imports_nothing(one_office: PrivacyOffice) -> None:
    office = one_office
    (office.folder / "crm_sync.yaml").write_text(f"{office.text}\nsuppress: {{lists: [no.csv]}}\n")
    (office.folder / "no.csv").write_text("a@x.example\nacme.example\n")

    result = office.command("config", "apply", "--offline", "--dry-run")

    assert "no.csv: 2 to leave alone (1 email, 1 domain)." in result.output
    assert office.json("suppress", "list", "--json") == []


def test_check_and_doctor_say_which_opt_outs_cannot_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {"Contact": ["HasOptedOutOfEmail"]}
    with Sandbox(contacts=60, unlimited=True, salesforce_options={"hidden": hidden}) as sandbox:
        office = PrivacyOffice(sandbox, "salesforce", f"sqlite:///{tmp_path}/crm_sync.db", monkeypatch, tmp_path)
        (tmp_path / "crm_sync.yaml").write_text(office.text)

        findings = office.json("config", "check", "--json")
        doctor = {check["name"]: check["detail"] for check in office.json("doctor", "--json")}
        run = office.walk()
        office.app.close()

    [note] = [f for f in findings if f["path"] == "syncs.contacts.object"]
    assert note["severity"] == "note"
    assert "this user sees no HasOptedOutOfEmail (Email Opt Out)" in note["message"]
    assert "not seen, so not known: HasOptedOutOfEmail" in doctor["salesforce Contact opt-outs"]
    assert doctor["salesforce Lead opt-outs"].startswith("honoured: HasOptedOutOfEmail")
    assert run.counts.balanced  # whoever opted out there is enriched: nobody can know
    assert run.left_out == {}
