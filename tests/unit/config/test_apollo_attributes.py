"""The catalogue of what can be mapped agrees with itself and with the vocabularies."""

from __future__ import annotations

from crm_sync.config.apollo_attributes import AttributeKind, attributes, find, vocabulary

PYTHON_TYPES: dict[AttributeKind, type | tuple[type, ...]] = {
    AttributeKind.INTEGER: int,
    AttributeKind.NUMBER: (int, float),
    AttributeKind.BOOLEAN: bool,
    AttributeKind.LIST: tuple,
}


def test_every_attribute_has_a_description_and_a_sample_of_its_kind() -> None:
    for attribute in attributes():
        assert attribute.description, attribute.path
        assert isinstance(attribute.sample, PYTHON_TYPES.get(attribute.kind, str)), attribute.path
        assert attribute.sample not in ("", ()), attribute.path
        assert attribute.path.split(".", 1)[0] in ("person", "organization")
        assert attribute.is_person is attribute.path.startswith("person.")


def test_samples_from_a_closed_list_are_on_it() -> None:
    with_lists = [a for a in attributes() if a.vocabulary]
    assert {a.vocabulary for a in with_lists} == {"seniority", "departments", "functions", "industry"}
    for attribute in with_lists:
        words = attribute.sample if isinstance(attribute.sample, tuple) else (attribute.sample,)
        assert set(words) <= set(vocabulary(attribute.vocabulary)), attribute.path


def test_what_must_not_be_mapped_is_known_with_its_reason() -> None:
    switchboard = find("person.phone_numbers")

    assert switchboard is not None
    assert "switchboard" in switchboard.refused
    assert switchboard not in attributes()


def test_unknown_paths_are_unknown() -> None:
    assert find("person.shoe_size") is None
    assert vocabulary("shoes") == ()
