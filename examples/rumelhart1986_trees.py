"""The two family trees of Rumelhart, Hinton and Williams 1986, fig. 2, and the facts in them."""

from __future__ import annotations

from typing import NamedTuple

# in the order of the paper's figures, first the men; who stands below is the same person in the
# other tree
ENGLISH = (
    "Christopher Andrew Arthur James Charles Colin "
    "Penelope Christine Victoria Jennifer Margaret Charlotte"
).split()
ITALIAN = (
    "Roberto Pierro Emilio Marco Tomaso Alfonso Maria Francesca Lucia Angela Gina Sophia"
).split()
PEOPLE = ENGLISH + ITALIAN
RELATIONS = (
    "father mother husband wife son daughter uncle aunt brother sister nephew niece"
).split()
COUPLES = {
    ("Christopher", "Penelope"): ["Arthur", "Victoria"],
    ("Andrew", "Christine"): ["James", "Jennifer"],
    ("James", "Victoria"): ["Colin", "Charlotte"],
    ("Arthur", "Margaret"): [],
    ("Charles", "Jennifer"): [],
}


def relatives(person: str) -> dict[str, set[str]]:
    """Whom an English person has for each relation; uncles and aunts are so by marriage too."""
    spouse = {a: b for pair in COUPLES for a, b in (pair, pair[::-1])}
    parents = {child: set(pair) for pair, children in COUPLES.items() for child in children}
    children = {a: set(theirs) for pair, theirs in COUPLES.items() for a in pair}

    def siblings(people: set[str]) -> set[str]:
        theirs = [parents[p] for p in people if p in parents]
        return {p for p in parents if parents[p] in theirs} - people

    def wed(people: set[str]) -> set[str]:
        return people | {spouse[p] for p in people if p in spouse}

    me = {person}
    found = {
        ("father", "mother"): parents.get(person, set()),
        ("husband", "wife"): wed(me) - me,
        ("son", "daughter"): children.get(person, set()),
        ("uncle", "aunt"): wed(siblings(parents.get(person, set()))),
        ("brother", "sister"): siblings(me),
        ("nephew", "niece"): {n for s in siblings(wed(me)) - wed(me) for n in children.get(s, ())},
    }
    men = set(ENGLISH[:6])
    return {
        name: whom & men if name == his else whom - men
        for (his, hers), whom in found.items()
        for name in (his, hers)
    }


class Fact(NamedTuple):
    """A case of the task: a person, a relation, and everybody who is that."""

    person: str
    relation: str
    answers: frozenset[str]


def facts() -> list[Fact]:
    """The 104 cases, first the 52 of the English tree."""
    italian = dict(zip(ENGLISH, ITALIAN, strict=True))
    english = [
        Fact(person, relation, frozenset(whom))
        for person in ENGLISH
        for relation, whom in relatives(person).items()
        if whom
    ]
    return english + [
        Fact(italian[p], relation, frozenset(italian[a] for a in whom))
        for p, relation, whom in english
    ]
