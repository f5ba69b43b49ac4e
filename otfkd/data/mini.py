"""The data set `mini`: English sentences and graded sentence pairs, the same bytes wherever they are generated.

A sentence is a frame ("{when}, {who} {did} {where}") filled with an event: someone of a topic, an act, circumstances.
The vocabulary offers at least two wordings of nearly everything, so one event can be told in words that barely overlap,
and two unrelated events in words that mostly do. The grade of a pair follows from what its two events have in common.
"""

import functools
import random
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Ways = tuple[str, ...]
"""The wordings of one meaning."""
Event = dict[str, Ways]
"""What happens, by slot: who, act, where, why, when, often, soon."""
Wording = dict[str, str]
"""One wording for each slot of an event."""
Split = Literal["train", "dev", "test"]

_CORPUS_SIZE = 24_000
# Of the corpus as a file, a sentence a line: where that is there already, its two seconds are saved.
CORPUS_SHA256 = "8cf1d5bbf455a38b2f6ef067c80f38ee28a9a61e27aef4b55edcfcbe36094ecb"
_TRAIN_SIZE, _DEV_SIZE, _TEST_SIZE = 2_400, 400, 800
_WORDS = range(4, 15)
_PAIR_WORDS = range(4, 18)
_FACT_SHARE = 0.15
_NAMED_SHARE = 0.3
_MANNER_SHARE = 0.25
_REWORDED_SHARE = 0.5
_TOLD_SHARE = 0.7

_PREPOSITION = re.compile(
    r" (?:of|in|on|at|for|from|with|to|by|under|against|into|who|over|near|next|that|upstairs)\b.*"
)
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=(?!uni|use)[aeiouAEIO])")


class Topic(NamedTuple):
    """The vocabulary of one topic."""

    who: tuple[Ways, ...]
    act: tuple[Ways, ...]
    where: tuple[Ways, ...]
    why: tuple[Ways, ...]
    facts: tuple[Ways, ...]


class _Dice:
    """Draws through `random()` alone: Python guarantees no other stream to stay the same across versions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, share: float) -> bool:
        return self._random() < share

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def pick_other(self, options: Sequence[T], taken: T) -> T:
        """Picks another option than the taken one, unless there is no other."""
        return self.pick([option for option in options if option != taken] or options)


def _ways(entries: Sequence[str]) -> tuple[Ways, ...]:
    return tuple(tuple(entry.split(" | ")) for entry in entries)


_DATA: dict[str, Any] = tomllib.loads(resources.files("otfkd.data").joinpath("mini_topics.toml").read_text("utf-8"))
TOPICS = tuple(
    Topic(*(_ways(topic[slot]) for slot in ("who", "acts", "where", "why", "facts")))
    for topic in _DATA["topics"].values()
)
_TIMES = ("when", "often", "soon")
_SHARED = {slot: _ways(_DATA["shared"][slot]) for slot in _TIMES}
_PEOPLE: list[str] = _DATA["shared"]["people"]
_MANNERS: list[str] = _DATA["shared"]["manners"]
_FRAMES: dict[str, list[str]] = _DATA["frames"]
_CORPUS_FRAMES: list[str] = [frame for family in _FRAMES.values() for frame in family] + _DATA["corpus"]["frames"]
_SPEAKERS: list[str] = _DATA["tellings"]["speakers"]
_TELLINGS: list[str] = _DATA["tellings"]["frames"]
_FACT_FRAMES: list[str] = _DATA["corpus"]["facts"]
_GRAMMAR: dict[str, Any] = _DATA["grammar"]


@functools.cache
def _is_plural(noun_phrase: str) -> bool:
    """Tells by the head of a noun phrase, which stands before any preposition."""
    words = _PREPOSITION.sub("", noun_phrase).split()
    if " and " in noun_phrase or any(word in _GRAMMAR["plural"] for word in words):
        return True
    return bool(re.search(r"(?<![sui])s$", words[-1])) and words[-1] not in _GRAMMAR["singular"]


@functools.cache
def _inflect(verb: str) -> dict[str, str]:
    """Returns the forms of a verb, whose particle ("put out") stays as it is."""
    base, *rest = verb.split(" ", 1)
    stem = base[:-1] if base.endswith("e") else base
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", base) or base in _GRAMMAR["doubled"]:
        stem = base + base[-1]
    if re.search(r"[^aeiou]y$", base):
        past, third = base[:-1] + "ied", base[:-1] + "ies"
    else:
        past, third = stem + "ed", base + ("es" if re.search(r"(?:s|x|z|ch|sh|[^o]o)$", base) else "s")
    doing = base[:-2] + "ying" if base.endswith("ie") else (base if base.endswith(("ee", "ye")) else stem) + "ing"
    did, done = _GRAMMAR["irregular"].get(base, f"{past} {past}").split()
    forms = {"do": base, "does": "has" if base == "have" else third, "did": did, "done": done, "doing": doing}
    return {form: " ".join([word, *rest]) for form, word in forms.items()}


@functools.cache
def _act_slots(act: str) -> dict[str, str]:
    """Returns the forms of an act ("put out > the fire"), without a passive where nothing is marked as its object."""
    verb, _, thing = act.partition(" > ")
    if not thing:
        return _inflect(act)
    forms = _inflect(verb)
    be = {"was": "were", "are": "are"} if _is_plural(thing) else {"was": "was", "are": "is"}
    return {form: f"{word} {thing}" for form, word in forms.items()} | {"what": thing, "acted": forms["done"]} | be


def _slots(wording: Wording) -> dict[str, str]:
    plural = _is_plural(wording["who"])
    act = _act_slots(wording["act"])
    agreement = {"is": "are", "has": "have", "does": act["do"]} if plural else {"is": "is", "has": "has"}
    return wording | act | agreement


def _sentence(frame: str, slots: dict[str, str]) -> str:
    text = _BEFORE_VOWEL.sub(r"\1n ", frame.format_map(slots))
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _fitting(frames: Sequence[str], *acts: str) -> list[str]:
    """Drops the passive frames unless every act has an object."""
    return [frame for frame in frames if "{what}" not in frame or all(" > " in act for act in acts)]


def _people(dice: _Dice, topic: Topic) -> tuple[Ways, ...]:
    article = dice.pick(("the", "a"))
    plural_article = "the" if article == "the" else "some"
    return tuple(
        tuple(f"{plural_article if _is_plural(noun) else article} {noun}" for noun in who) for who in topic.who
    )


def _event(dice: _Dice, topic: Topic, unlike: Event) -> Event:
    """Draws an event that differs from another one in every slot."""
    own = {"who": _people(dice, topic), "act": topic.act, "where": topic.where, "why": topic.why}
    return {slot: dice.pick_other(options, unlike.get(slot, ())) for slot, options in (own | _SHARED).items()}


def _word(dice: _Dice, event: Event) -> Wording:
    return {slot: dice.pick(ways) for slot, ways in event.items()}


def _retell(dice: _Dice, ways: Ways, told: str) -> str:
    """Words one slot once more: a meaning told before often, but not always, in other words."""
    return told if told in ways and not dice.chance(_REWORDED_SHARE) else dice.pick_other(ways, told)


def _told(dice: _Dice, topic: Topic) -> str:
    """Tells one or two events of a topic, for the corpus."""
    event = _event(dice, topic, {})
    first, second = _word(dice, event), _word(dice, _event(dice, topic, event))
    for wording in (first, second):
        if dice.chance(_NAMED_SHARE):
            wording["who"] = dice.pick(_PEOPLE)
        elif dice.chance(_MANNER_SHARE):
            article, noun = wording["who"].split(" ", 1)
            wording["who"] = f"{article} {dice.pick(_MANNERS)} {noun}"
    if dice.chance(_FACT_SHARE):
        return _sentence(dice.pick(_FACT_FRAMES), first | {"fact": dice.pick(dice.pick(topic.facts))})
    frame = dice.pick(_fitting(_CORPUS_FRAMES, first["act"]))
    return _sentence(frame, _slots(first) | {f"{slot}2": text for slot, text in _slots(second).items()})


def _pair(dice: _Dice, grade: float) -> tuple[str, str]:
    """Tells an event twice; the lower the grade, the more of it the second telling replaces."""
    topic = dice.pick(TOPICS)
    family = dice.pick(tuple(_FRAMES))
    tense, setting, *time = family.split()
    told = tense != "question" and dice.chance(_TOLD_SHARE)
    replaced: dict[float, list[str]] = {
        5.0: [],
        4.0: [] if told else (time or [setting]),
        3.0: ["who", setting],
        2.0: ["who", "act", *time],
        1.0: ["who", "act", setting, *time],
        0.0: ["who", "act", setting, *time],
    }
    event = _event(dice, topic, {})
    other = _event(dice, topic if grade else dice.pick_other(TOPICS, topic), event)
    left = _word(dice, event)
    right = {slot: _retell(dice, (other if slot in replaced[grade] else event)[slot], left[slot]) for slot in event}
    frame = dice.pick(_fitting(_FRAMES[family], left["act"], right["act"]))
    # Unrelated events in the same frame share many words, and one event in two frames fewer.
    other_frame = dice.pick_other(_fitting(_FRAMES[family], right["act"]), frame) if grade >= 3 else frame
    if told:
        speaker, telling = dice.pick(_SPEAKERS), dice.pick(_TELLINGS)
        frame = telling.format(speaker=speaker, told=frame)
        # That someone tells it is the minor detail of grade 4; the same speaker must not make unrelated events similar.
        if grade not in (3, 4):
            telling = telling if grade < 3 else dice.pick_other(_TELLINGS, telling)
            other_frame = telling.format(speaker=speaker, told=other_frame)
    return _sentence(frame, _slots(left)), _sentence(other_frame, _slots(right))


def _triplet(dice: _Dice) -> tuple[str, str, str]:
    """Tells an event twice, and what somebody else did in the same circumstances and in the frame of the first."""
    topic = dice.pick(TOPICS)
    family = dice.pick(tuple(_FRAMES))
    event = _event(dice, topic, {})
    other = _event(dice, topic, event)
    told = _word(dice, event)
    same = {slot: _retell(dice, ways, told[slot]) for slot, ways in event.items()}
    near = {slot: _retell(dice, (other if slot in ("who", "act") else event)[slot], told[slot]) for slot in event}
    frames = _fitting(_FRAMES[family], told["act"], same["act"], near["act"])
    frame = dice.pick(frames)
    other_frame = dice.pick_other(frames, frame)
    return _sentence(frame, _slots(told)), _sentence(other_frame, _slots(same)), _sentence(frame, _slots(near))


def _fresh(told: set[str], sentences: tuple[str, ...]) -> bool:
    """Takes sentences of natural length that were never told before, and remembers them."""
    fresh = len({*sentences} - told) == len(sentences)
    if not (fresh and all(len(sentence.split()) in _PAIR_WORDS for sentence in sentences)):
        return False
    told.update(sentences)
    return True


def _graded(dice: _Dice, size: int, told: set[str]) -> tuple[tuple[str, str, float], ...]:
    graded: list[tuple[str, str, float]] = []
    while len(graded) < size:
        grade = float(len(graded) % 6)
        pair = _pair(dice, grade)
        if _fresh(told, pair):
            graded.append((*pair, grade))
    return tuple(graded)


@functools.cache
def _held_out() -> tuple[tuple[str, str, float], ...]:
    return _graded(_Dice(1), _DEV_SIZE + _TEST_SIZE, set())


def _held_out_sentences() -> set[str]:
    return {sentence for left, right, _ in _held_out() for sentence in (left, right)}


@functools.cache
def pairs(split: Split) -> tuple[tuple[str, str, float], ...]:
    """Returns the graded sentence pairs of a split; 5 is the same meaning, 0 is unrelated; no two share a sentence."""
    match split:
        case "train":
            return _graded(_Dice(2), _TRAIN_SIZE, _held_out_sentences())
        case "dev":
            return _held_out()[:_DEV_SIZE]
        case "test":
            return _held_out()[_DEV_SIZE:]


@functools.cache
def triplets() -> tuple[tuple[str, str, str], ...]:
    """Returns sentences to train on, each with a paraphrase and a near miss; none occurs in a dev or test pair."""
    dice, told = _Dice(3), _held_out_sentences()
    drawn: list[tuple[str, str, str]] = []
    while len(drawn) < _TRAIN_SIZE:
        triplet = _triplet(dice)
        if _fresh(told, triplet):
            drawn.append(triplet)
    return tuple(drawn)


@functools.cache
def corpus() -> tuple[str, ...]:
    """Returns distinct sentences, none of which occurs in a dev or test pair."""
    dice, told = _Dice(0), _held_out_sentences()
    sentences: list[str] = []
    while len(sentences) < _CORPUS_SIZE:
        sentence = _told(dice, dice.pick(TOPICS))
        if sentence not in told and len(sentence.split()) in _WORDS:
            told.add(sentence)
            sentences.append(sentence)
    return tuple(sentences)
