"""SOQL text to a tree: the subset the sandbox runs, and a loud refusal of everything else.

Grammar (upper case are keywords, case is ignored):

    query      := SELECT (COUNT() | path {, path}) FROM object [WHERE condition] [ORDER BY order {, order}] [LIMIT n]
    condition  := term {AND term} | term {OR term}            AND and OR never side by side without parentheses
    term       := NOT term | ( condition ) | path operator literal | path [NOT] IN ( literal {, literal} )
    order      := path [ASC | DESC] [NULLS FIRST | NULLS LAST]

A query outside it that the service would run is refused with MALFORMED_QUERY, naming the construct.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError

#: Characters of a whole query, of one string in it, and levels of parentheses (contracts/salesforce.md 2.1; the
#: last is the sandbox's own).
MAX_TEXT = 100_000
MAX_STRING = 4_000
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d))
    | (?P<date>\d{4}-\d\d-\d\d(?!\w))
    | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?![\w.]))
    | (?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<symbol><=|>=|!=|<>|[=<>(),:])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}

#: Date literals, with and without ":n". Fiscal ones and the other ranges of the service are refused by name.
_RANGES = frozenset((
    "TODAY", "YESTERDAY", "TOMORROW", "THIS_WEEK", "LAST_WEEK", "THIS_MONTH", "LAST_MONTH", "THIS_YEAR", "LAST_YEAR",
    "LAST_90_DAYS",
))  # fmt: skip
_COUNTED_RANGES = frozenset(["LAST_N_DAYS", "NEXT_N_DAYS", "N_DAYS_AGO"])
_FOREIGN_RANGE = re.compile(r"(?:LAST|NEXT|THIS|N)_[A-Z0-9_]+\Z")
_FOREIGN_WORDS = frozenset(["INCLUDES", "EXCLUDES"])
_FOREIGN_CLAUSES = {
    "USING": "USING SCOPE",
    "WITH": "WITH",
    "GROUP": "GROUP BY",
    "HAVING": "HAVING",
    "OFFSET": "OFFSET",
    "FOR": "FOR VIEW, FOR REFERENCE and FOR UPDATE",
    "ALL": "ALL ROWS",
    "UPDATE": "UPDATE TRACKING and UPDATE VIEWSTAT",
}
_RESERVED = frozenset((
    "AND", "OR", "NOT", "IN", "LIKE", "NULL", "TRUE", "FALSE", "ASC", "DESC", "NULLS", "FROM", "WHERE", "ORDER", "BY",
    "LIMIT", "SELECT",
))  # fmt: skip
_OPERATORS = frozenset(("=", "!=", "<>", "<", "<=", ">", ">="))


@dataclass(frozen=True, slots=True)
class Path:
    """A field, by way of its parents: ("Account", "Website"). `position` is where it stands in the text."""

    names: tuple[str, ...]
    position: int

    @property
    def text(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value. `kind` is string, number, boolean, null, date, datetime (`value` an aware UTC datetime) or range
    (`value` is the keyword and its n: ("LAST_N_DAYS", 30)). `like` is a string with \\% and \\_ still escaped."""

    kind: str
    value: object
    position: int
    like: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of = != < <= > >= LIKE IN NOT IN; only the last two have more than one literal."""

    path: Path
    operator: str
    literals: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Not:
    term: Condition


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple[Condition, ...]


Condition = Comparison | Not | And | Or


@dataclass(frozen=True, slots=True)
class Order:
    path: Path
    descending: bool
    nulls_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    text: str
    #: Empty for SELECT COUNT().
    select: tuple[Path, ...]
    object_name: str
    object_position: int
    where: Condition | None
    order_by: tuple[Order, ...]
    limit: int | None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text


def parse(text: str) -> Query:
    """Return the tree of `text`; names are not looked up here.

    Raises:
        RequestError: 400 MALFORMED_QUERY.
    """
    if len(text) > MAX_TEXT:
        raise RequestError(
            400, RequestCode.MALFORMED_QUERY, f"SOQL statements cannot be longer than {MAX_TEXT} characters."
        )
    return _Parser(text).query()


def error_at(text: str, position: int, message: str, code: RequestCode = RequestCode.MALFORMED_QUERY) -> RequestError:
    """A refusal that points at the place, in the service's layout (recorded: contracts/salesforce.md 3.3)."""
    before = text[:position]
    row = before.count("\n") + 1
    line_start = before.rfind("\n") + 1
    line_end = text.find("\n", position)
    line = text[line_start : line_end if line_end >= 0 else len(text)]
    column = position - line_start
    window = max(0, column - 60)
    pointer = " " * (column - window)
    return RequestError(
        400,
        code,
        f"\n{line[window : column + 60]}\n{pointer}^\nERROR at Row:{row}:Column:{column + 1}\n{message}",
    )


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenise()
        self._next = 0
        self._depth = 0

    def query(self) -> Query:
        self._keyword("SELECT")
        select = self._select()
        self._keyword("FROM")
        source = self._word("object name")
        follows = self._peek()
        clause = follows.upper in ("WHERE", "ORDER", "LIMIT") or follows.upper in _FOREIGN_CLAUSES
        if follows.text == "," or (follows.kind == "word" and not clause):
            raise self._unsimulated(follows.position, "an alias or a second object in FROM")
        where = self._condition() if self._take("WHERE") else None
        order_by = self._order_by()
        limit = self._limit()
        end = self._peek()
        if end.upper in _FOREIGN_CLAUSES:
            raise self._unsimulated(end.position, _FOREIGN_CLAUSES[end.upper])
        if end.kind:
            raise self._unexpected(end)
        return Query(
            text=self._text,
            select=select,
            object_name=source.text,
            object_position=source.position,
            where=where,
            order_by=order_by,
            limit=limit,
        )

    def _select(self) -> tuple[Path, ...]:
        paths: list[Path] = []
        while True:
            token = self._peek()
            if token.text == "(":
                raise self._unsimulated(token.position, "a subquery in SELECT")
            word = self._word("field name")
            if word.upper == "TYPEOF":
                raise self._unsimulated(word.position, "TYPEOF")
            if self._is("("):
                if word.upper != "COUNT" or paths:
                    raise self._unsimulated(word.position, f"the function {word.text}() in SELECT")
                self._keyword("(")
                if not self._take(")"):
                    raise self._unsimulated(word.position, "COUNT(field)")
                return ()
            paths.append(Path(tuple(word.text.split(".")), word.position))
            if not self._take(","):
                return tuple(paths)

    def _condition(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._unsimulated(self._peek().position, f"more than {MAX_DEPTH} levels of conditions")
        first = self._term()
        terms = [first]
        joiner = self._peek().upper if self._is("AND", "OR") else ""
        while joiner and self._take(joiner):
            terms.append(self._term())
        if self._is("AND", "OR"):
            # The platform refuses `a AND b OR c` (contracts/salesforce.md 5).
            raise self._unexpected(self._peek())
        self._depth -= 1
        if joiner == "AND":
            return And(tuple(terms))
        return Or(tuple(terms)) if joiner == "OR" else first

    def _term(self) -> Condition:
        negations = 0
        while self._take("NOT"):
            negations += 1
        term: Condition
        if self._take("("):
            term = self._condition()
            self._keyword(")")
        else:
            term = self._comparison()
        return Not(term) if negations % 2 else term

    def _comparison(self) -> Comparison:
        word = self._word("field name")
        if self._is("("):
            raise self._unsimulated(word.position, f"the function {word.text}() in WHERE")
        path = Path(tuple(word.text.split(".")), word.position)
        operator = self._advance()
        if operator.upper in _FOREIGN_WORDS:
            raise self._unsimulated(operator.position, operator.upper)
        if operator.upper == "NOT":
            self._keyword("IN")
            return Comparison(path, "NOT IN", self._list())
        if operator.upper == "IN":
            return Comparison(path, "IN", self._list())
        if operator.upper != "LIKE" and operator.text not in _OPERATORS:
            raise self._unexpected(operator)
        name = "!=" if operator.text == "<>" else operator.upper
        return Comparison(path, name, (self._literal(),))

    def _list(self) -> tuple[Literal, ...]:
        self._bind()
        self._keyword("(")
        if self._is("SELECT"):
            raise self._unsimulated(self._peek().position, "a semi-join (a query inside IN)")
        literals = [self._literal()]
        while self._take(","):
            literals.append(self._literal())
        self._keyword(")")
        return tuple(literals)

    def _bind(self) -> None:
        if self._is(":"):
            raise self._unsimulated(self._peek().position, "a bind variable")

    def _literal(self) -> Literal:
        self._bind()
        token = self._advance()
        at = token.position
        match token.kind:
            case "string":
                return self._string(token)
            case "number":
                value = float(token.text) if "." in token.text else int(token.text)
                return Literal("number", value, at)
            case "date" | "datetime":
                return self._moment(token)
            case "word":
                return self._constant(token)
        raise self._unexpected(token)

    def _constant(self, token: _Token) -> Literal:
        word, at = token.upper, token.position
        if word in ("TRUE", "FALSE"):
            return Literal("boolean", word == "TRUE", at)
        if word == "NULL":
            return Literal("null", None, at)
        if word in _RANGES:
            return Literal("range", (word, 0), at)
        if word in _COUNTED_RANGES:
            self._keyword(":")
            count = self._advance()
            if count.kind != "number" or not count.text.isdigit():
                raise self._unexpected(count)
            if int(count.text) > 100_000:
                raise self._unsimulated(count.position, "a range of more than 100,000 days")
            return Literal("range", (word, int(count.text)), at)
        if _FOREIGN_RANGE.match(word):
            raise self._unsimulated(at, f"the date literal {word}")
        if re.match(r"[A-Z]{3}\d+\Z", word):
            raise self._unsimulated(at, "a currency literal")
        raise self._unexpected(token)

    def _string(self, token: _Token) -> Literal:
        raw = token.text[1:-1]

        def replace_(match: re.Match[str], *, like: bool = False) -> str:
            code = match.group(1)
            if code in ("%", "_"):
                return match.group(0) if like else code
            if len(code) == 5:
                return chr(int(code[1:], 16))
            if code == "\\" and like:
                return "\\\\"
            if code not in _ESCAPED:
                raise error_at(
                    self._text,
                    token.position,
                    f"Invalid string literal '{raw}'. Illegal character sequence '\\{code}' in string literal.",
                )
            return _ESCAPED[code]

        value = _ESCAPE.sub(replace_, raw)
        if len(value) > MAX_STRING:
            raise error_at(
                self._text,
                token.position,
                f"String literal exceeds the maximum length of {MAX_STRING} characters",
            )
        return Literal("string", value, token.position, _ESCAPE.sub(lambda match: replace_(match, like=True), raw))

    def _moment(self, token: _Token) -> Literal:
        try:
            if token.kind == "date":
                day = datetime.strptime(token.text, "%Y-%m-%d").replace(tzinfo=UTC)
                return Literal("date", day.strftime("%Y-%m-%d"), token.position)
            moment = datetime.fromisoformat(token.text.replace("Z", "+00:00")).astimezone(UTC)
        except (ValueError, OverflowError):
            raise error_at(self._text, token.position, f"Invalid date or time: {token.text}") from None
        return Literal("datetime", moment, token.position)

    def _order_by(self) -> tuple[Order, ...]:
        if not self._take("ORDER"):
            return ()
        self._keyword("BY")
        orders: list[Order] = []
        while True:
            word = self._word("field name")
            if self._is("("):
                raise self._unsimulated(word.position, f"the function {word.text}() in ORDER BY")
            descending = False
            if self._is("ASC", "DESC"):
                descending = self._advance().upper == "DESC"
            nulls_last = False
            if self._take("NULLS"):
                if not self._is("FIRST", "LAST"):
                    raise self._unexpected(self._peek())
                nulls_last = self._advance().upper == "LAST"
            orders.append(Order(Path(tuple(word.text.split(".")), word.position), descending, nulls_last))
            if not self._take(","):
                return tuple(orders)

    def _limit(self) -> int | None:
        if not self._take("LIMIT"):
            return None
        self._bind()
        token = self._advance()
        if token.kind != "number" or not token.text.isdigit():
            raise self._unexpected(token)
        return int(token.text)

    def _tokenise(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                if self._text[position] == "'":
                    raise error_at(self._text, position, "unterminated string literal")
                raise error_at(self._text, position, f"unexpected token: '{self._text[position]}'")
            kind = match.lastgroup or ""
            if kind != "space":
                tokens.append(_Token(kind, match.group(), position))
            position = match.end()
        tokens.append(_Token("", "", len(self._text)))
        return tokens

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _advance(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind:
            self._next += 1
        return token

    def _is(self, *words: str) -> bool:
        return self._peek().kind != "string" and self._peek().upper in words

    def _take(self, word: str) -> bool:
        if self._is(word):
            self._next += 1
            return True
        return False

    def _keyword(self, word: str) -> None:
        if not self._take(word):
            raise self._unexpected(self._peek())

    def _word(self, what: str) -> _Token:
        token = self._peek()
        if token.kind != "word" or token.upper in _RESERVED:
            if not token.kind:
                raise error_at(self._text, token.position, f"unexpected token: '<EOF>' (a {what} should follow)")
            raise self._unexpected(token)
        return self._advance()

    def _unexpected(self, token: _Token) -> RequestError:
        return error_at(self._text, token.position, f"unexpected token: '{token.text or '<EOF>'}'")

    def _unsimulated(self, position: int, what: str) -> RequestError:
        return error_at(self._text, position, f"The crm-sync sandbox does not simulate {what}.")
