"""Forgetting a person leaves no trace, purging forgets nobody who would be bought again, and export tells all."""

from __future__ import annotations

import orjson
import pytest

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.store.reviews import MATCH, Proposal
from tests.factories import a_run
from tests.journeys.conftest import later
from tests.journeys.privacy.office import PrivacyOffice, all_columns, is_sound, raw_bytes


def words_of(office: PrivacyOffice, index: int) -> list[bytes]:
    """What may be left nowhere of contact `index`."""
    person = office.person(index)
    return [person.email.encode(), person.linkedin_slug.encode(), office.id_of(index).encode()]


def traces_of(office: PrivacyOffice, index: int) -> dict[str, list[bytes]]:
    """Column or file -> the words that stand there, sealed columns opened."""
    store, vault = office.app.store, office.app.vault
    places = all_columns(store)
    from sqlalchemy import select

    from crm_sync.store.journal import body_name, request_name
    from crm_sync.store.tables import batches

    with store.read() as connection:
        for row in connection.execute(select(batches)):
            if row.request:
                places[f"request {row.id}"] = vault.unseal(bytes(row.request), request_name(row.fingerprint))
            if row.body:
                places[f"body {row.id}"] = vault.unseal(bytes(row.body), body_name(row.id))
    places["file"] = raw_bytes(store)
    return {
        place: found
        for place, content in places.items()
        if (found := [word for word in words_of(office, index) if word in content.lower() or word in content])
    }


def test_erasing_leaves_no_trace_of_the_person_and_everything_of_the_others(every_office: PrivacyOffice) -> None:
    office = every_office
    office.walk()
    spent = office.app.runs.latest()[0].credits
    before = traces_of(office, 3)
    others = traces_of(office, 4)

    result = office.command("erase", office.person(3).email.upper(), "--yes")

    assert result.exit_code == 0, result.output
    assert {"request 1", "body 1", "run_records.decisions", "record_states.record_id"} <= set(before)
    assert traces_of(office, 3) == {}
    assert {key: value for key, value in traces_of(office, 4).items() if key != "file"} == {
        key: value for key, value in others.items() if key != "file"
    }
    assert office.person(3).email not in result.output
    assert office.app.journal.spent(office.app.runs.latest()[0].id) == spent
    if office.app.store.path is not None:
        assert is_sound(office.app.store.path)


def with_a_release_and_a_question(office: PrivacyOffice, *indexes: int) -> None:
    """What a purge and the rule `review` leave about these contacts."""
    app, run = office.app, office.app.runs.latest()[0]
    proposals = []
    for index in indexes:
        record_id = office.id_of(index)
        app.provenance.release(run.crm, run.object_type, record_id, {office.name("title"): "CTO"}, now=app.clock.now())
        proposals.append(
            Proposal(
                object_type=run.object_type, record_id=record_id, field="", kind=MATCH, what="x", reason="not trusted"
            )
        )
    put = app.reviews.proposing(proposals, run_id=run.id, sync=run.sync, crm=run.crm, now=app.clock.now())
    assert put is not None
    with app.store.write() as connection:
        put(connection)


def test_what_was_written_last_and_what_waits_for_a_person_is_erased_too(office: PrivacyOffice) -> None:
    office.walk()
    with_a_release_and_a_question(office, 3, 4)
    told = office.json("privacy", "export", office.person(3).email)

    result = office.command("erase", office.person(3).email, "--yes")

    assert [list(row["fields"]) for row in told["provenance"]] == [[office.name("title")]]
    assert [(row["kind"], row["state"], row["reason"]) for row in told["reviews"]] == [("match", "open", "not trusted")]
    assert "1  records with fields known as written by crm-sync (provenance)" in result.output
    assert "1  questions put to a person (reviews)" in result.output
    assert traces_of(office, 3) == {}
    assert [each.record_id for each in office.app.reviews.listed()] == [office.id_of(4)]


def test_a_second_erasure_finds_nothing_and_the_next_run_leaves_them_alone(office: PrivacyOffice) -> None:
    office.walk()
    address = office.person(3).email
    first = office.json("erase", address, "--yes", "--json")
    second = office.json("erase", address, "--yes", "--json")
    office.edit(3, {office.name("title"): None if office.crm == "salesforce" else ""})
    office.edit(4, {office.name("title"): None if office.crm == "salesforce" else ""})
    office.asked.clear()

    run = office.walk()

    assert first["removed"]["run_records"] == 1
    assert first["suppressed"] == 4  # the address, the page, Apollo's id, the record
    assert first["left"] == {}
    assert first["compacted"]
    assert (second["removed"], second["suppressed"]) == ({}, 0)
    assert run.left_out["do not enrich: suppressed record"] == 1
    assert run.counts.updated == 1  # their neighbour in the same call, from the answer that is still there
    assert run.credits == 0
    assert office.asked == []
    assert not office.value(3, office.name("title"))
    assert traces_of(office, 3) == {}


def test_somebody_erased_stays_alone_under_another_address_and_after_the_record_lost_it(office: PrivacyOffice) -> None:
    office.walk()
    office.command("erase", office.person(3).email, "--yes")
    office.edit(3, {office.name("email"): "new.address@elsewhere.example", office.name("title"): ""})
    office.asked.clear()

    run = office.walk()

    assert run.left_out["do not enrich: suppressed record"] == 1
    assert office.asked == []


def test_a_person_known_by_page_or_name_only_is_found_by_the_address_in_the_answer(office: PrivacyOffice) -> None:
    person = office.person(3)
    office.edit(3, {office.name("email"): None if office.crm == "salesforce" else ""})  # asked for by name and company
    office.walk()

    found = office.json("erase", person.email, "--dry-run", "--json")
    result = office.command("erase", person.email, "--yes")

    assert found["removed"] == {}
    assert found["found"]["run_records"] == 1
    assert found["found"]["batches"] == 1
    assert result.exit_code == 0, result.output
    assert traces_of(office, 3) == {}


def test_a_dry_run_and_a_no_change_nothing(one_office: PrivacyOffice) -> None:
    office = one_office
    office.walk()
    address = office.person(3).email
    before = all_columns(office.app.store)

    dry = office.command("erase", address, "--dry-run")
    refused = office.command("erase", address, say="n\n")

    assert dry.exit_code == 0
    assert refused.exit_code == 1
    assert "Nothing was changed." in refused.output
    assert all_columns(office.app.store) == before


def test_erasing_somebody_unknown_suppresses_them_all_the_same(office: PrivacyOffice) -> None:
    told = office.json("erase", "never.seen@nowhere.example", "--yes", "--json")

    assert told["removed"] == {}
    assert told["suppressed"] == 1
    assert office.json("suppress", "check", "never.seen@nowhere.example", "--json")["by"][0]["source"] == "erased"


def test_while_a_run_is_under_way_the_person_is_suppressed_and_erased_later(office: PrivacyOffice) -> None:
    from crm_sync.pipeline.run import owner

    office.walk()
    address = office.person(3).email
    running = a_run(
        status=RunStatus.RUNNING,
        crm=office.crm,
        id="20261008-120000-aaaa",
        sync="another",
        started_at=office.app.clock.now(),
    )
    office.app.runs.open(running, owner=owner())

    result = office.command("erase", address, "--yes")

    assert result.exit_code == 1
    assert "run 20261008-120000-aaaa is under way" in result.output
    assert address not in result.output
    assert office.json("suppress", "check", address, "--json")["suppressed"]
    assert traces_of(office, 3)


def test_an_answer_in_doubt_is_emptied_too_and_stays_in_doubt(office: PrivacyOffice) -> None:
    office.sandbox.faults["apollo"].add([{"call": "POST /api/v1/people/bulk_match", "what": "cut", "when": "after"}])
    office.walk()
    in_doubt = [call.id for call in office.app.journal.doubts()]

    result = office.command("erase", office.person(3).email, "--yes")

    assert result.exit_code == 0, result.output
    assert traces_of(office, 3) == {}
    assert [call.id for call in office.app.journal.doubts()] == in_doubt
    assert len(in_doubt) == 1


def test_export_tells_all_that_is_kept_and_where(office: PrivacyOffice) -> None:
    office.walk()
    office.walk(kind=RunKind.PLAN)
    person = office.person(3)

    told = office.json("privacy", "export", person.email)

    assert told["known_by"]["emails"] == [person.email]
    assert told["known_by"]["linkedin"] == [f"in/{person.linkedin_slug}"]
    [call] = told["batches"]
    assert call["asked"][0]["email"] == person.email
    assert call["answered"][0]["title"] == person.title
    assert {row["source"] for row in told["answers"]} >= {"bulk", "alias"}
    assert told["run_records"][0]["id"] == office.id_of(3)
    assert any(decision["new"] == person.title for decision in told["run_records"][0]["fields"])
    assert told["record_states"][0]["record_id"] == office.id_of(3)
    assert office.person(4).email not in orjson.dumps(told).decode()


BAD = (
    ("erase", "not.an.address"),
    ("erase",),
    ("erase", "some.body@x.example", "any.body@x.example"),
    ("erase", "some.body@x.example", "--json"),
    ("privacy", "export", "some.body"),
    ("privacy", "some.body@x.example"),
    ("suppress", "some.body@x.example"),
    ("suppress", "add"),
    ("suppress", "add", "email"),
    ("suppress", "add", "email", "some.body@"),
    ("suppress", "add", "nonsense", "some.body@x.example"),
    ("suppress", "add", "emial", "some.body@x.example"),
    ("suppress", "add", "phone", "030 1234567"),
    ("suppress", "add", "record", "12345"),
    ("suppress", "add", "domain", "some.body@x.example"),
    ("suppress", "remove", "what is this"),
    ("suppress", "check", "?"),
    ("suppress", "import", "not.there.csv"),
    ("suppress", "import", "latin.csv"),
    ("suppress", "import", "quotes.csv"),
    ("suppress", "import", "nobody.csv"),
    ("suppress", "import", "."),
)


def test_bad_arguments_end_with_2_and_are_never_printed_back(one_office: PrivacyOffice) -> None:
    office = one_office
    (office.folder / "latin.csv").write_bytes("some.body@böse.example\n".encode("latin-1"))
    (office.folder / "quotes.csv").write_text('a@b.example\n"some.body@x.example\nany.body@x.example\n')
    (office.folder / "nobody.csv").write_text("some.body at x.example\n")
    for words in BAD:
        result = office.command(*words)

        assert result.exit_code == 2, (words, result.output)
        assert "some.body" not in result.output, words
        assert "any.body" not in result.output, words
        assert "Traceback" not in result.output, words
    assert office.json("suppress", "list", "--json") == []


def test_a_file_is_imported_and_says_which_lines_name_nobody(one_office: PrivacyOffice) -> None:
    office = one_office
    rows = "\n".join(f"person{number}@company{number % 300}.example" for number in range(5_000))
    (office.folder / "people.txt").write_text(f"# from legal\n{rows}\nsomebody without an address\n")

    first = office.command("suppress", "import", "people.txt")
    second = office.command("suppress", "import", "people.txt")

    assert first.exit_code == 0
    assert "people.txt:5002:1: warning: nothing here is" in first.output
    assert "5,000 to leave alone (5,000 email); 5,000 new." in first.output
    assert "; 0 new." in second.output
    assert (
        office.json("suppress", "check", "PERSON7@company7.example", "--json")["by"][0]["source"] == "file:people.txt"
    )
    assert "imported from people.txt" in office.command("suppress", "list").output
    assert "1 entry taken off" in office.command("suppress", "remove", "person7@company7.example").output
    assert "Not suppressed." in office.command("suppress", "check", "person7@company7.example").output


# --- purge ------------------------------------------------------------------------------------------------------------


def test_purging_keeps_the_ledger_and_forgets_nobody_who_would_be_bought_again(
    office: PrivacyOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.apply(office.text.replace("or_older_than: 120d", "or_older_than: 300d") + "\nkeep: {answers: 300d}\n")
    run = office.walk()
    later(office, monkeypatch, 299)
    kept = office.json("purge", "--json")["purged"]
    blank = None if office.crm == "salesforce" else ""
    office.edit(0, {office.name("title"): blank})
    free = office.walk()
    later(office, monkeypatch, 301)

    dry = office.json("purge", "--dry-run", "--json")["purged"]
    purged = office.json("purge", "--json")["purged"]

    assert (kept["batches"], kept["answers"]) == (0, 0)
    assert kept["run_records"] == 60
    assert free.counts.updated == 1
    assert free.credits == 0
    assert dry == purged
    assert purged["batches"] == 6
    assert purged["answers"] > 60
    assert office.app.journal.spent(run.id) == run.credits == 60
    assert set(office.json("purge", "--json")["purged"].values()) == {0}
    assert b"@" not in all_columns(office.app.store)["batches.request"]
    again = office.walk()
    assert again.counts.balanced
    assert again.credits == again.counts.selected


def test_a_short_time_for_answers_empties_them_and_still_buys_nobody_twice(
    office: PrivacyOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.apply(office.text.replace("      or_older_than: 120d", "      #") + "\nkeep: {answers: 10d}\n")
    office.walk()
    later(office, monkeypatch, 20)
    office.edit(0, {office.name("title"): None if office.crm == "salesforce" else ""})

    purged = office.json("purge", "--json")["purged"]
    run = office.walk()

    assert purged["batches"] == 6
    assert purged["answers"] == 0
    assert run.credits == 0
    assert run.counts.skipped == 1
    assert "too fresh to be bought again" in next(iter(office.reasons(run.id)))


def test_a_run_purges_by_itself_once_a_day(office: PrivacyOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    office.apply(office.text + "\nkeep: {run_details: 1d, undo: 1d}\n")
    office.walk()
    later(office, monkeypatch, 2)

    first = office.command("run", "contacts")
    second = office.command("run", "contacts")
    later(office, monkeypatch, 3.1)
    third = office.command("run", "contacts")

    assert "Purged: 60 records in runs." in first.output
    assert "Purged" not in second.output
    assert third.exit_code == 0
    assert office.app.retention.last() is not None


def test_a_purge_that_fails_does_not_fail_the_run(one_office: PrivacyOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    office = one_office
    from crm_sync.errors import StoreError
    from crm_sync.store.retention import Retention

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Retention, "purge", fail)

    result = office.command("run", "contacts")

    assert result.exit_code == 0
    assert "the daily purge did not come to its end: the disk is full" in result.output


def test_the_address_can_come_from_standard_input(one_office: PrivacyOffice) -> None:
    office = one_office
    office.walk()
    address = office.person(3).email

    told = office.command("privacy", "export", "-", say=f"{address}\n")
    erased = office.command("erase", "-", "--yes", say=f" {address} \n")

    assert orjson.loads(told.stdout)["known_by"]["emails"] == [address]
    assert erased.exit_code == 0
    assert traces_of(office, 3) == {}


# --- a backup that is put back ------------------------------------------------------------------------------------------


def back_up(office: PrivacyOffice) -> bytes:
    assert office.app.store.path is not None
    office.app.store.compact()
    return office.app.store.path.read_bytes()


def put_back(office: PrivacyOffice, content: bytes) -> None:
    path = office.app.store.path
    assert path is not None
    office.app.close()
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(content)
    office.restart()


def test_after_a_restore_the_erased_are_left_alone_at_once_and_can_be_erased_again(one_office: PrivacyOffice) -> None:
    office = one_office
    office.walk()
    backup = back_up(office)
    for index in (3, 4, 13):
        assert office.command("erase", office.person(index).email, "--yes").exit_code == 0

    put_back(office, backup)
    held = office.json("suppress", "check", office.person(3).email, "--json")
    restored = traces_of(office, 3)
    dry = office.json("erase", "--again", "--dry-run", "--json")
    done = office.json("erase", "--again", "--yes", "--json")
    nothing = office.command("erase", "--again", "--yes")

    assert held["by"][0]["source"] == "erased"
    assert restored
    assert dry["found"]["run_records"] == 3
    assert done["removed"] == dry["found"]
    assert done["left"] == {}
    for index in (3, 4, 13):
        assert traces_of(office, index) == {}
    assert traces_of(office, 5)
    assert "Nothing is kept about anybody erased before." in nothing.output


def test_an_erased_person_of_whom_only_a_run_tells_is_erased_again_too(one_office: PrivacyOffice) -> None:
    from sqlalchemy import update

    from crm_sync.store.tables import batches

    office = one_office
    office.walk()
    with office.app.store.write() as connection:
        connection.execute(update(batches).values(request=b"", body=None, fingerprint=""))  # as a purge leaves it
    backup = back_up(office)
    office.command("erase", office.person(3).email, "--yes")

    put_back(office, backup)
    office.command("erase", "--again", "--yes")

    assert traces_of(office, 3) == {}
    assert traces_of(office, 4)


def test_the_note_of_erasures_tells_nobody_and_follows_a_change_of_mind(one_office: PrivacyOffice) -> None:
    office = one_office
    address = office.person(3).email
    office.command("erase", address, "--yes")
    note = office.app.erasures.path
    content = note.read_bytes()

    taken_off = office.command("suppress", "remove", address, "--erased", "--yes")

    assert address.encode() not in content
    assert note.stat().st_mode & 0o077 == 0
    assert taken_off.exit_code == 0
    assert office.app.erasures.read() == set()
    assert not office.json("suppress", "check", address, "--json")["suppressed"]


def test_a_note_that_cannot_be_read_or_written_stops_before_anything_is_removed(one_office: PrivacyOffice) -> None:
    office = one_office
    office.walk()
    address = office.person(3).email
    office.app.erasures.path.write_text("nonsense\n")

    unreadable = office.command("erase", address, "--yes")
    run = office.command("run", "contacts")
    office.app.erasures.path.unlink()
    office.app.erasures.path.mkdir()
    unwritable = office.command("erase", address, "--yes")
    office.app.erasures.path.rmdir()

    assert (unreadable.exit_code, run.exit_code, unwritable.exit_code) == (1, 1, 1)
    assert "has something in line 1 that is no erasure" in unreadable.output
    assert "cannot be read" in unwritable.output
    assert address not in unreadable.output + unwritable.output
    assert traces_of(office, 3)


def test_again_and_a_name_do_not_go_together(one_office: PrivacyOffice) -> None:
    assert one_office.command("erase", "--again", "some.body@x.example").exit_code == 2
