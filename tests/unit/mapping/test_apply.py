from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.model import Band, FieldMapping
from crm_sync.domain.changes import WantedValue, WriteRule
from crm_sync.domain.records import FieldKind, FieldSchema
from crm_sync.errors import ConfigError
from crm_sync.mapping.apply import NO_BAND, NO_CHOICE, NOT_MET, Mapped, Mapper, sources
from crm_sync.mapping.picklists import builtin_table, fold
from tests.unit.mapping.examples import a_field, a_mapping, an_answer, an_object, choices

PICKLIST, MULTI = FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST
LEVELS = a_field(PICKLIST, choices=choices("Executive", "VP", "Manager", inactive=("Director",)))
TABLE = {"csuite": "Executive", "founder": "Executive", "head": "VP", "director": "Director"}
BANDS = (Band(value="1-50", low=1, high=50), Band(value="51+", low=51, high=None))
SIZES = a_field(PICKLIST, choices=choices("1-50", "51+"))


def want(
    mapping: FieldMapping,
    field: FieldSchema | None = None,
    person: dict[str, Any] | None = None,
    organization: dict[str, Any] | None = None,
) -> Mapped:
    return Mapper([mapping], an_object(field or a_field())).want(an_answer(person, organization))


def one(*args: Any, **more: Any) -> WantedValue:
    return want(*args, **more).wanted[0]


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", [], "   ", [None], [""]])
def test_no_value_is_none_without_a_problem(value: object) -> None:
    wanted = one(a_mapping(), person={"title": value})

    assert (wanted.value, wanted.problem, wanted.note) == (None, "", "")


def test_a_missing_key_is_no_value() -> None:
    assert one(a_mapping()).value is None


@pytest.mark.parametrize(
    "organization",
    [{"primary_phone": {}}, {"primary_phone": None}, {"primary_phone": "+1"}, {"primary_phone": []}, {}],
)
def test_a_deep_path_survives_what_is_not_there(organization: dict[str, Any]) -> None:
    assert one(a_mapping("organization.primary_phone.number"), organization=organization).value is None


def test_a_deep_path_is_read() -> None:
    wanted = one(a_mapping("organization.primary_phone.number"), organization={"primary_phone": {"number": "+1 312"}})

    assert (wanted.value, wanted.source) == ("+1 312", "organization.primary_phone.number")


def test_one_wanted_value_per_mapping_in_order() -> None:
    fields = [a_field(name="B"), a_field(name="A", kind=FieldKind.INTEGER)]
    mapper = Mapper(
        [
            a_mapping(field="B", rule=WriteRule.REPLACE),
            a_mapping("organization.estimated_num_employees", field="A"),
        ],
        an_object(*fields),
    )

    wanted = mapper.want(an_answer({"title": "CTO"}, {"estimated_num_employees": 640})).wanted

    assert [(w.field, w.value, w.rule) for w in wanted] == [
        ("B", "CTO", WriteRule.REPLACE),
        ("A", 640, WriteRule.FILL),
    ]


def test_a_field_the_object_does_not_have_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"Contact has no field Gone__c .* `crm-sync config check`"):
        Mapper([a_mapping(field="Gone__c")], an_object(a_field()))


def test_a_field_that_became_read_only_is_its_own_problem_and_still_shows_under_never() -> None:
    field = a_field(writable=False, why_not="it is calculated.")

    assert one(a_mapping(), field, person={"title": "CTO"}).problem == "it is calculated."
    assert one(a_mapping(), field).problem == ""
    assert one(a_mapping(rule=WriteRule.NEVER), field, person={"title": "CTO"}).value == "CTO"


# --- texts and numbers --------------------------------------------------------------------------------------------


def test_transforms_run_in_order_on_each_part_of_a_list_before_it_is_joined() -> None:
    mapping = a_mapping("person.departments", join="; ", transform=("words", "title_case"))

    assert one(mapping, person={"departments": ["master_sales", "c_suite", None, ""]}).value == "Sales; C Suite"


def test_a_transform_that_leaves_nothing_leaves_no_value() -> None:
    assert one(a_mapping(transform=("year",)), person={"title": "soon"}) == WantedValue(
        field="Field__c", source="person.title", rule=WriteRule.FILL, value=None
    )


def test_max_cuts_and_without_it_a_long_text_is_the_fields_problem_alone() -> None:
    person = {"title": "Head of Sales Operations"}

    assert one(a_mapping(max=20), a_field(length=20), person=person).value == "Head of Sales"
    long = one(a_mapping(), a_field(length=20), person=person)
    assert long.value is None
    assert long.problem == "Apollo's text has 24 characters and the field takes 20; `max: 20` would cut it"


@pytest.mark.parametrize(("round_to", "value"), [(None, 1249.6), (1, 1250), (1000, 1000)])
def test_round_names_the_multiple(round_to: int | None, value: float) -> None:
    mapping = a_mapping("organization.annual_revenue", round=round_to)

    wanted = one(mapping, a_field(FieldKind.DECIMAL), organization={"annual_revenue": 1249.6})

    assert wanted.value == value


def test_a_group_of_values_is_a_problem_and_never_written_as_text() -> None:
    wanted = one(a_mapping("organization.primary_phone"), organization={"primary_phone": {"number": "+1 312"}})

    assert (wanted.value, wanted.problem) == (None, "Apollo's value is a group of values, not a text")


# --- picklists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [("c_suite", "Executive"), ("C-Suite", "Executive"), ("head", "VP"), ("manager", "Manager"), ("vp", "VP")],
)
def test_a_word_goes_by_the_table_and_else_by_the_live_choices(word: str, value: str) -> None:
    mapped = want(a_mapping("person.seniority", picklist=TABLE), LEVELS, person={"seniority": word})

    assert (mapped.wanted[0].value, mapped.unmapped) == (value, ())


def test_a_word_nobody_mapped_is_collected_and_leaves_the_field_alone() -> None:
    mapped = want(a_mapping("person.seniority", picklist=TABLE), LEVELS, person={"seniority": "intern"})

    assert mapped.unmapped == (("Field__c", "intern"),)
    assert (mapped.wanted[0].value, mapped.wanted[0].problem, mapped.wanted[0].note) == (None, "", NO_CHOICE)


def test_a_table_value_that_is_no_longer_active_counts_as_unmapped() -> None:
    mapped = want(a_mapping("person.seniority", picklist=TABLE), LEVELS, person={"seniority": "director"})

    assert (mapped.wanted[0].value, mapped.unmapped) == (None, (("Field__c", "director"),))


@pytest.mark.parametrize(("unmapped", "value"), [("leave", None), ("use", "Manager")])
def test_unmapped_words_are_left_or_replaced_as_configured(unmapped: str, value: str | None) -> None:
    mapping = a_mapping("person.seniority", picklist=TABLE, unmapped=unmapped, unmapped_use="manager")

    mapped = want(mapping, LEVELS, person={"seniority": "intern"})

    assert (mapped.wanted[0].value, mapped.unmapped) == (value, ())


def test_without_a_table_the_live_choices_decide() -> None:
    industries = a_field(PICKLIST, choices=choices("Food & Beverage", "Retail"))

    mapped = want(a_mapping("organization.industry"), industries, organization={"industry": "food and beverage"})

    assert mapped.wanted[0].value == "Food & Beverage"


def test_every_word_of_a_ready_table_reaches_its_value() -> None:
    table = builtin_table("salesforce_seniority")
    field = a_field(PICKLIST, choices=choices(*dict.fromkeys(table.values())))
    mapper = Mapper([a_mapping("person.seniority", picklist=table)], an_object(field))

    reached = {
        word: mapper.want(an_answer({"seniority": word})).wanted[0].value for word in ("c_suite", "vp", "intern")
    }

    assert reached == {"c_suite": "Executive", "vp": "VP", "intern": "Individual Contributor"}


def test_a_multi_select_takes_the_mapped_part_of_a_list_once_each() -> None:
    field = a_field(MULTI, choices=choices("Sales", "Operations"))
    mapping = a_mapping("person.departments", transform=("words",))

    mapped = want(
        mapping, field, person={"departments": ["master_sales", "sales", "master_legal", None, "master_operations"]}
    )

    assert mapped.wanted[0].value == ("Sales", "Operations")
    assert mapped.unmapped == (("Field__c", "legal"),)


def test_a_multi_select_with_nothing_mapped_has_no_value() -> None:
    field = a_field(MULTI, choices=choices("Sales"))

    assert one(a_mapping("person.departments"), field, person={"departments": ["legal"]}).value is None


def test_yes_and_no_can_be_choices() -> None:
    field = a_field(PICKLIST, choices=choices("Hot", "Cold"))
    mapping = a_mapping("person.is_likely_to_engage", picklist={"true": "Hot", "false": "Cold"})

    assert one(mapping, field, person={"is_likely_to_engage": False}).value == "Cold"


# --- bands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "value"), [(1, "1-50"), (50, "1-50"), (50.4, "1-50"), (51, "51+"), (10**9, "51+"), (51.0, "51+")]
)
def test_a_number_goes_into_its_band_with_both_ends(number: float, value: str) -> None:
    mapping = a_mapping("organization.estimated_num_employees", bands=BANDS)

    assert one(mapping, SIZES, organization={"estimated_num_employees": number}).value == value


def test_a_number_in_no_band_is_no_value_and_no_problem() -> None:
    mapping = a_mapping("organization.estimated_num_employees", bands=BANDS)

    wanted = one(mapping, SIZES, organization={"estimated_num_employees": 0})

    assert (wanted.value, wanted.problem, wanted.note) == (None, "", NO_BAND)


def test_a_band_whose_value_is_not_active_is_a_problem() -> None:
    mapping = a_mapping("organization.estimated_num_employees", bands=BANDS)
    field = a_field(PICKLIST, choices=choices("1-50", inactive=("51+",)))

    wanted = one(mapping, field, organization={"estimated_num_employees": 640})

    assert (wanted.value, wanted.problem) == (None, "the band's value is not an active value of this picklist")


def test_bands_can_name_a_text() -> None:
    mapping = a_mapping("organization.estimated_num_employees", bands=BANDS)

    assert one(mapping, a_field(), organization={"estimated_num_employees": 7}).value == "1-50"


# --- conditions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ("person.email_status = verified", True),
        ("person.email_status = VERIFIED", True),
        ("person.email_status != verified", False),
        ("person.email_status in [guessed, verified]", True),
        ("person.email_status in [guessed]", False),
        ("person.seniority is blank", True),
        ("person.seniority is not blank", False),
        ("person.seniority = vp", False),
        ("person.seniority != vp", False),
        ("person.departments = master_sales", True),
        ("person.departments != master_legal", True),
        ("organization.estimated_num_employees = 640", True),
        ("organization.annual_revenue = 84000000", True),
        ("person.is_likely_to_engage = true", True),
        ("person.email_status = verified and person.seniority is blank", True),
        ("person.email_status = verified and person.seniority is not blank", False),
    ],
)
def test_a_condition_decides_whether_there_is_a_value(when: str, *, met: bool) -> None:
    wanted = one(
        a_mapping(when=when),
        person={
            "title": "CTO",
            "email_status": " Verified",
            "departments": ["c_suite", "master_sales"],
            "is_likely_to_engage": True,
        },
        organization={"estimated_num_employees": 640, "annual_revenue": 84000000.0},
    )

    assert (wanted.value, wanted.note) == (("CTO", "") if met else (None, NOT_MET + when))


# --- templates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "city", "country", "text"),
    [
        ("{{ person.city }}, {{ person.country }}", "Leeds", "United Kingdom", "Leeds, United Kingdom"),
        ("{{ person.city }}, {{ person.country }}", "Leeds", None, "Leeds"),
        ("{{ person.city }}, {{ person.country }}", "", "United Kingdom", "United Kingdom"),
        ("{{ person.city }}, {{ person.country }}", None, " ", None),
        ("{{ person.city }} ({{ person.country }})", "Leeds", None, "Leeds"),
        ("{{ person.city }} ({{ person.country }})", None, "United Kingdom", "(United Kingdom)"),
        ("{{ person.city }} - {{ person.state }} - {{ person.country }}", "Leeds", "UK", "Leeds - UK"),
        ("{{ person.city }} ({{ person.state }}, {{ person.country }})", "Leeds", "UK", "Leeds (UK)"),
        ("Lives in {{ person.city }}, {{ person.country }}.", "Leeds", None, "Lives in Leeds."),
        ("Region: {{ person.city }}", None, None, None),
        ("{{ person.city }}", "Leeds, ", None, "Leeds,"),
        ("{{ person.city }}{{ person.country }}", "Leeds", None, "Leeds"),
    ],
)
def test_a_template_is_tidied_around_what_is_blank(
    template: str, city: str | None, country: str | None, text: str | None
) -> None:
    assert one(a_mapping(template=template), person={"city": city, "country": country}).value == text


def test_a_template_shows_numbers_and_lists_as_a_person_would_write_them() -> None:
    mapping = a_mapping(template="{{ organization.annual_revenue }}: {{ organization.keywords }}")

    wanted = one(mapping, organization={"annual_revenue": 84000000.0, "keywords": ["grid", " ", "energy"]})

    assert wanted.value == "84000000: grid, energy"


def test_a_template_with_a_group_of_values_is_a_problem() -> None:
    mapping = a_mapping(template="{{ organization.primary_phone }}")

    assert one(mapping, organization={"primary_phone": {"number": "1"}}).problem.endswith("not a text")


@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), min_size=3, max_size=3))
def test_a_template_keeps_every_filled_value_and_no_separator_at_its_ends(values: list[str | None]) -> None:
    mapping = a_mapping(template="{{ person.city }}, {{ person.state }}, {{ person.country }}")
    shown = [value.strip().replace("\0", "") for value in values if value]
    field = a_field(FieldKind.LONG_TEXT)

    wanted = one(mapping, field, person=dict(zip(("city", "state", "country"), values, strict=True)))

    if any(shown):
        for value in shown:
            assert all(part in str(wanted.value) for part in value.split() if part.isalnum())
        if all(word.isalnum() for word in shown if word):
            assert wanted.value == ", ".join(word for word in shown if word)
    else:
        assert wanted.value is None


# --- what is read -------------------------------------------------------------------------------------------------


def test_sources_are_all_paths_a_mapping_reads() -> None:
    mappings = [
        a_mapping("organization.industry", when="organization.country = Germany"),
        a_mapping(template="{{ organization.city }}, {{ organization.state }}"),
    ]

    assert sources(mappings) == {
        "organization.industry",
        "organization.country",
        "organization.city",
        "organization.state",
    }


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


@given(
    value=ANYTHING, kind=st.sampled_from(FieldKind), options=st.sampled_from(["plain", "table", "bands", "template"])
)
def test_whatever_apollo_answers_the_mapping_never_fails(value: Any, kind: FieldKind, options: str) -> None:
    variants: dict[str, dict[str, Any]] = {
        "plain": {"transform": ("trim", "title_case"), "when": "person.title is not blank", "round": 1, "max": 10},
        "table": {"picklist": {fold("vp"): "VP"}},
        "bands": {"bands": BANDS},
        "template": {"template": "{{ person.title }}, {{ person.city.name }}"},
    }
    field = a_field(kind, length=30, digits=8, scale=2, choices=choices("VP", "1-50"))

    wanted = one(a_mapping(**variants[options]), field, person={"title": value, "city": value})

    assert wanted.value is None or not wanted.problem
    assert wanted.value is None or isinstance(wanted.value, str | int | float | bool | tuple)
    if kind is PICKLIST:
        assert wanted.value in (None, "VP", "1-50")
    if kind is MULTI and wanted.value is not None:
        assert wanted.value in (("VP",), ("1-50",), ("VP", "1-50"), ("1-50", "VP"))
