"""What the service answers when it refuses, in its own words and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class RowCode(StrEnum):
    """Why one record was refused. All are DML status codes of the service's own enumeration (592 values, in
    simple-salesforce's metadata.wsdl; a test compares)."""

    ALL_OR_NONE_OPERATION_ROLLED_BACK = "ALL_OR_NONE_OPERATION_ROLLED_BACK"
    CANNOT_UPDATE_CONVERTED_LEAD = "CANNOT_UPDATE_CONVERTED_LEAD"
    DUPLICATE_VALUE = "DUPLICATE_VALUE"
    ENTITY_IS_DELETED = "ENTITY_IS_DELETED"
    FIELD_CUSTOM_VALIDATION_EXCEPTION = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    INVALID_CROSS_REFERENCE_KEY = "INVALID_CROSS_REFERENCE_KEY"
    INVALID_EMAIL_ADDRESS = "INVALID_EMAIL_ADDRESS"
    INVALID_FIELD_FOR_INSERT_UPDATE = "INVALID_FIELD_FOR_INSERT_UPDATE"
    INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    INVALID_TYPE_ON_FIELD_IN_RECORD = "INVALID_TYPE_ON_FIELD_IN_RECORD"
    MALFORMED_ID = "MALFORMED_ID"
    MISSING_ARGUMENT = "MISSING_ARGUMENT"
    NUMBER_OUTSIDE_VALID_RANGE = "NUMBER_OUTSIDE_VALID_RANGE"
    REQUIRED_FIELD_MISSING = "REQUIRED_FIELD_MISSING"
    STRING_TOO_LONG = "STRING_TOO_LONG"
    UNABLE_TO_LOCK_ROW = "UNABLE_TO_LOCK_ROW"


class RequestCode(StrEnum):
    """Why a whole request was refused. These are REST error codes, most of them outside the DML enumeration."""

    API_ERROR = "API_ERROR"
    CLIENTINPUTERROR = "CLIENTINPUTERROR"
    ENTITY_IS_DELETED = "ENTITY_IS_DELETED"
    EXCEEDED_ID_LIMIT = "EXCEEDED_ID_LIMIT"
    INVALIDJOB = "INVALIDJOB"
    INVALIDJOBSTATE = "INVALIDJOBSTATE"
    INVALID_AUTH_HEADER = "INVALID_AUTH_HEADER"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_HTTP_HEADER = "INVALID_HTTP_HEADER"
    INVALID_QUERY_FILTER_OPERATOR = "INVALID_QUERY_FILTER_OPERATOR"
    INVALID_QUERY_LOCATOR = "INVALID_QUERY_LOCATOR"
    INVALID_SESSION_ID = "INVALID_SESSION_ID"
    INVALID_TYPE = "INVALID_TYPE"
    JSON_PARSER_ERROR = "JSON_PARSER_ERROR"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    MALFORMED_QUERY = "MALFORMED_QUERY"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    NOT_FOUND = "NOT_FOUND"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    REQUEST_LIMIT_EXCEEDED = "REQUEST_LIMIT_EXCEEDED"
    SERVER_UNAVAILABLE = "SERVER_UNAVAILABLE"
    UNSUPPORTED_API_VERSION = "UNSUPPORTED_API_VERSION"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"


@dataclass(frozen=True, slots=True)
class RowError:
    """One entry of a SaveResult's `errors`: the message names the label, `fields` the API names
    (contracts/salesforce.md 2.3)."""

    code: RowCode
    message: str
    fields: tuple[str, ...] = ()

    def as_save_error(self) -> dict[str, object]:
        return {"statusCode": self.code.value, "message": self.message, "fields": list(self.fields)}


@dataclass(slots=True)
class RequestError(Exception):
    """The request as a whole is refused; `code` is a RequestCode, or a RowCode where one record was addressed."""

    status: int
    code: RequestCode | RowCode
    message: str
    fields: tuple[str, ...] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> list[dict[str, object]]:
        entry: dict[str, object] = {"message": self.message, "errorCode": self.code.value}
        if self.fields is not None:
            entry["fields"] = list(self.fields)
        return [entry]


def not_found() -> RequestError:
    return RequestError(404, RequestCode.NOT_FOUND, "The requested resource does not exist")
