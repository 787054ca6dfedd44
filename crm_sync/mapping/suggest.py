"""Which of a picklist's values an Apollo word may mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz

from crm_sync.domain.records import Choice
from crm_sync.mapping.picklists import Choices, fold

#: From here on two spellings are as good as the same ("medical device", "medical devices").
NEAR = 90
#: Below this, resemblance is chance.
_LEAST = 65
#: A word that is only part of a longer value, or holds a shorter one, may mean it and may not: "health care" is in
#: "mental health care". It never counts as near.
_PART = 0.85
#: Shorter words are part of too much.
_SHORTEST_PART = 5

_PUNCTUATION = re.compile(r"[\W_]+")


class Suggestion(NamedTuple):
    """An active value, how sure this is from 0 to 100, and why in words."""

    value: str
    label: str
    score: int
    why: str


class Suggester:
    """Suggestions from one picklist's active choices.

    `tables` are ready ones (folded Apollo word -> CRM value, mapping/picklists.py) for the same kind of word, the best
    first: what somebody has thought about goes before what is spelt alike.
    """

    def __init__(self, choices: tuple[Choice, ...], tables: Sequence[Mapping[str, str]] = ()) -> None:
        self._labels = {choice.value: choice.label for choice in choices if choice.active}
        self._live = Choices(choices)
        self._tables = tuple(tables)
        self._forms = [
            (choice.value, *_forms(text))
            for choice in choices
            if choice.active
            for text in dict.fromkeys((choice.value, choice.label))
        ]

    def suggest(self, word: str, *, most: int = 3) -> tuple[Suggestion, ...]:
        """The best ones, best first; where several are equally sure, in the picklist's own order."""
        found: dict[str, Suggestion] = {}
        same = self._live.find(word)
        if same is not None:
            found[same] = self._made(same, 100, "the same word")
        for table in self._tables:
            value = self._live.find(table.get(fold(word), ""))
            if value is not None:
                found.setdefault(value, self._made(value, 100, "ready-made table"))
                break
        folded, words = _forms(word)
        scores: dict[str, int] = {}
        for value, its_folded, its_words in self._forms:
            scores[value] = max(scores.get(value, 0), _score(folded, words, its_folded, its_words))
        for value, score in scores.items():
            if score >= _LEAST:
                found.setdefault(value, self._made(value, score, "spelt alike" if score >= NEAR else "similar"))
        return tuple(sorted(found.values(), key=lambda one: -one.score)[:most])

    def _made(self, value: str, score: int, why: str) -> Suggestion:
        return Suggestion(value, self._labels.get(value, value), score, why)


def sure(suggestions: Sequence[Suggestion], at_least: int) -> Suggestion | None:
    """The one to take without asking, None when none is sure enough or two are equally so."""
    if not suggestions or suggestions[0].score < at_least:
        return None
    if len(suggestions) > 1 and suggestions[1].score == suggestions[0].score:
        return None
    return suggestions[0]


def _forms(text: str) -> tuple[str, str]:
    """As one word, and as words without case, punctuation and "and"."""
    parts = _PUNCTUATION.sub(" ", text.casefold().replace("&", " ")).split()
    return fold(text), " ".join(part for part in parts if part != "and")


def _score(folded: str, words: str, its_folded: str, its_words: str) -> int:
    if not folded or not its_folded:
        return 0
    whole = max(fuzz.ratio(folded, its_folded), fuzz.token_sort_ratio(words, its_words))
    part = fuzz.token_set_ratio(words, its_words)
    if min(len(folded), len(its_folded)) < _SHORTEST_PART:
        part = 0.0
    elif folded in its_folded or its_folded in folded:
        part = 100.0
    # What is only spelt the same is less sure than the same word.
    return int(min(max(whole, _PART * part), 99))
