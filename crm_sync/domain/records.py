"""A CRM's records and what their object looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

#: One field as our side holds it. None and "" are both blank. Multi-choice fields are a tuple of values in the
#: CRM's order. Dates and datetimes stay ISO 8601 text.
Value = str | int | float | Decimal | bool | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRef:
    """Where one record lives.

    `crm` is the name in the configuration; `object_type` the CRM's own word (Contact, contacts). `id` is the
    provider's key as text: 18 characters in Salesforce, digits in HubSpot.
    """

    crm: str
    object_type: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record's fields as last read. `values` has a key for each field asked for, parents as "Account.Website".

    `version` is the CRM's own word for when it last changed, as `Crm.read` had it ("" where the CRM has none): a
    guarded write names it.
    """

    ref: RecordRef
    values: Mapping[str, Value]
    version: str = ""


class FieldKind(StrEnum):
    """The types a mapping can aim at, whatever the CRM calls them."""

    TEXT = "text"
    LONG_TEXT = "long text"
    INTEGER = "whole number"
    DECIMAL = "number"
    BOOLEAN = "checkbox"
    DATE = "date"
    DATETIME = "date and time"
    PICKLIST = "picklist"
    MULTI_PICKLIST = "multi-select picklist"
    EMAIL = "e-mail"
    PHONE = "phone"
    URL = "url"
    REFERENCE = "reference"
    ID = "id"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One value of a picklist. `value` is what the API takes, `label` what people see."""

    value: str
    label: str
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSchema:
    """One field as the live CRM describes it.

    `length` counts characters (None: no limit told). `digits` is the most digits before the point, `scale`
    after it (None: no limit told). `filterable` says whether a selection may name it, `readable` whether a read may:
    a compound field has no value of its own. `why_not` is the sentence to show when `writable` is False.
    """

    name: str
    label: str
    kind: FieldKind
    native_type: str
    writable: bool
    why_not: str = ""
    filterable: bool = True
    readable: bool = True
    length: int | None = None
    digits: int | None = None
    scale: int | None = None
    choices: tuple[Choice, ...] = ()
    #: True: the CRM itself refuses a value outside `choices`. We refuse it either way.
    restricted: bool = False
    #: Object types a REFERENCE points at ("Account").
    refers_to: tuple[str, ...] = ()
    #: The word before the dot that reads a parent through this field ("Account" for AccountId), "" when there is none.
    relationship: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSchema:
    """One object of one CRM, as described now. `fields` by API name, parents not included."""

    crm: str
    object_type: str
    label: str
    fields: Mapping[str, FieldSchema]
