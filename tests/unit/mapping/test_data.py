from __future__ import annotations

import csv
import re
from importlib.resources import files
from pathlib import Path

import orjson
import pytest

from crm_sync.mapping.match_keys import registrable_domain
from crm_sync.mapping.picklists import BUILTIN_TABLES, builtin_table, fold

SALESFORCE_INDUSTRIES = frozenset({
    "Agriculture", "Apparel", "Banking", "Biotechnology", "Chemicals", "Communications", "Construction", "Consulting",
    "Education", "Electronics", "Energy", "Engineering", "Entertainment", "Environmental", "Finance", "Food & Beverage",
    "Government", "Healthcare", "Hospitality", "Insurance", "Machinery", "Manufacturing", "Media", "Not For Profit",
    "Recreation", "Retail", "Shipping", "Technology", "Telecommunications", "Transportation", "Utilities", "Other",
})  # fmt: skip
#: contracts/hubspot.md 6.3, copied 2026-11: the 148 option values of the companies' `industry`.
HUBSPOT_INDUSTRIES = frozenset((Path(__file__).parent / "hubspot_industries.txt").read_text(encoding="utf-8").split())
HUBSPOT_SENIORITIES = {"vp", "director", "entry", "executive", "manager", "owner", "partner", "senior", "employee"}
SALESFORCE_SENIORITIES = {"Executive", "VP", "Director", "Manager", "Individual Contributor"}


def shipped(name: str) -> str:
    return files("crm_sync").joinpath(f"data/{name}").read_text(encoding="utf-8")


def vocabulary(name: str) -> list[str]:
    words: list[str] = orjson.loads(shipped("apollo_vocabularies.json"))[name]
    return words


@pytest.mark.parametrize(
    ("name", "count"), [("seniority", 11), ("departments", 14), ("functions", 19), ("industry", 147)]
)
def test_apollos_vocabularies_are_complete_and_have_no_word_twice(name: str, count: int) -> None:
    words = vocabulary(name)

    assert len(words) == len({fold(word) for word in words}) == count


@pytest.mark.parametrize("table", BUILTIN_TABLES)
def test_every_word_of_apollo_stands_in_each_ready_table_exactly_once(table: str) -> None:
    rows = list(csv.DictReader(shipped(f"{table}.csv").splitlines()))
    words = vocabulary("industry" if "industry" in table else "seniority")

    assert sorted(row["apollo"] for row in rows) == sorted(words)
    assert len(builtin_table(table)) == len(words)


@pytest.mark.parametrize(
    ("table", "allowed"),
    [
        ("salesforce_industry", SALESFORCE_INDUSTRIES),
        ("hubspot_industry", HUBSPOT_INDUSTRIES),
        ("salesforce_seniority", SALESFORCE_SENIORITIES),
        ("hubspot_seniority", HUBSPOT_SENIORITIES),
    ],
)
def test_a_ready_table_names_only_values_that_the_crm_has(table: str, allowed: set[str]) -> None:
    assert set(builtin_table(table).values()) <= allowed


def test_hubspots_industry_table_uses_each_option_at_most_once() -> None:
    values = list(builtin_table("hubspot_industry").values())

    assert len(values) == len(set(values))


def test_hubspots_options_are_the_148_of_the_contract() -> None:
    assert len(HUBSPOT_INDUSTRIES) == 148


@pytest.mark.parametrize("name", ["free_mail_domains.txt", "page_hosts.txt"])
def test_shipped_domains_are_registrable_sorted_and_distinct(name: str) -> None:
    domains = shipped(name).split()

    assert domains == sorted(set(domains))
    assert [domain for domain in domains if registrable_domain(domain) != domain] == []
    assert all(re.fullmatch(r"[a-z0-9.-]+", domain) for domain in domains)
