"""examples/rumelhart1986.py: the equations, the facts, what the networks learn, the pictures."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import leaf

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import rumelhart1986 as example
from rumelhart1986_trees import ENGLISH, ITALIAN, PEOPLE, RELATIONS, facts


def test_equations_by_hand_and_on_the_tape(device):
    rows = example.equations()
    assert [number for number, *_ in rows] == [f"({i})" for i in (1, 2, 3, 4, 5, 6, 7, 5, 6, 8, 9)]
    for number, _, hand, tape in rows:
        assert np.shape(hand) == np.shape(tape)
        assert np.all(hand != 0)
        np.testing.assert_allclose(tape, hand, rtol=1e-12, atol=1e-15, err_msg=number)


def test_equations_that_differ_are_noticed(monkeypatch):
    hand, tape = np.ones(2), np.array([1, 1 + 1e-9])
    monkeypatch.setattr(example, "equations", lambda: [("(6)", "dE/dw", hand, tape)])
    with pytest.raises(AssertionError, match=r"equation \(6\) and the tape differ by 1e-09"):
        example.print_equations()


def test_weights_change_by_equation_9_and_shrink(device):
    w = leaf([[[2.0]]])
    example.train(lambda: gg.sum(w) * 3, [w], 3, epsilon=0.1, alpha=0.5, shrink=0.01)
    expected, change = 2.0, 0.0
    for _ in range(3):
        change = -0.1 * 3 + 0.5 * change
        expected = (expected + change) * 0.99
    np.testing.assert_allclose(w.get(), expected, rtol=1e-14)


# ---- symmetry


def test_symmetry_is_learned(device):
    """Seed 1 is the quickest of the first twenty: few sweeps suffice on the emulated device."""
    found = example.symmetry([1], sweeps=700)
    assert 500 < found.needed[0] < 650
    assert found.error[0] < 0.2
    np.testing.assert_allclose(found.ratios()[0], [1, 2, 4], rtol=0.05)
    assert found.lopsided()[0] < 0.01
    one, other = found.hidden[0, :6].T
    np.testing.assert_allclose(one, -other, rtol=0.05)
    assert np.all(found.hidden[0, 6] < 0)  # biases: off for what is symmetrical,
    assert found.output[0, 2, 0] > 0  # on unless a hidden unit is on


def test_each_network_is_as_it_would_be_alone():
    """Seed 6 has learned after 825 sweeps, seed 0 has not after 900."""
    both, alone = example.symmetry([0, 6], sweeps=900), example.symmetry([6], sweeps=900)
    assert both.needed[0] == 0
    assert both.needed[1] == alone.needed[0] > 0
    np.testing.assert_allclose(both.hidden[1], alone.hidden[0], rtol=1e-6)


# ---- family trees


def test_there_are_104_facts():
    known = facts()
    assert len(known) == len({(person, relation) for person, relation, _ in known}) == 104
    assert sum(person in ENGLISH for person, *_ in known) == 52
    assert {relation for _, relation, _ in known} == set(RELATIONS)
    assert sum(len(answers) for *_, answers in known) == 112


@pytest.mark.parametrize(
    ("person", "relation", "answers"),
    [
        ("Colin", "father", "James"),
        ("Colin", "aunt", "Jennifer Margaret"),
        ("Charlotte", "uncle", "Arthur Charles"),
        ("Christopher", "wife", "Penelope"),
        ("Penelope", "son", "Arthur"),
        ("Christine", "daughter", "Jennifer"),
        ("Margaret", "husband", "Arthur"),
        ("Margaret", "nephew", "Colin"),
        ("Charles", "niece", "Charlotte"),
        ("James", "sister", "Jennifer"),
        ("Victoria", "brother", "Arthur"),
        ("Alfonso", "aunt", "Angela Gina"),
        ("Emilio", "mother", "Maria"),
        ("Tomaso", "wife", "Angela"),
        ("Christopher", "father", ""),
        ("James", "nephew", ""),
        ("Arthur", "son", ""),
        ("Margaret", "brother", ""),
    ],
)
def test_facts(person, relation, answers):
    found = {(fact.person, fact.relation): fact.answers for fact in facts()}
    assert found.get((person, relation), frozenset()) == set(answers.split())


def test_the_trees_are_isomorphic():
    twin = dict(zip(ENGLISH + ITALIAN, ITALIAN + ENGLISH, strict=True))
    known = set(facts())
    assert {(twin[p], r, frozenset(map(twin.get, a))) for p, r, a in known} == known
    assert len(PEOPLE) == len(set(PEOPLE)) == 24


def test_family_trees_are_learned_with_larger_steps():
    found = example.families([0, 1], start=1.0, sweeps=1500)
    assert np.all(found.learned("0.5") >= 95)
    assert np.all(found.learned("largest") >= found.learned("0.5"))
    assert found.people.shape == (2, 24, 6)
    assert [len(set(four)) for four in found.held_out] == [4, 4]
    assert found.new("0.5").shape == (2, 4)


def test_with_the_printed_steps_the_shrinking_wins():
    found = example.families([0, 1], epsilons=example.PRINTED, sweeps=1500)
    assert np.all(found.learned("0.5") == 0)
    assert np.all(found.error < 20)
    assert np.all(found.size < 20)


@pytest.mark.parametrize("to_the_end", [False, True])
def test_training_makes_the_error_smaller(device, to_the_end):
    before, after = (
        example.families([3], start=1.0, sweeps=sweeps, to_the_end=to_the_end).error[0]
        for sweeps in (21, 60)
    )
    assert after < before


# ---- the command


def test_the_command_prints_and_draws(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(example, "SETTINGS", [("short", {"start": 1.0, "sweeps": 400})])
    folder = tmp_path / "new" / "pictures"
    example.main(["--seeds", "2", "--plot", str(folder)])
    printed = capsys.readouterr().out
    assert re.search(r"^\(7\) dE/dy_i .* \de-\d\d$", printed, re.MULTILINE)
    assert re.search(r"^   1 +568   1.00 : 2.00 : 3.98", printed, re.MULTILINE)
    assert "2 of 2 learned it" in printed
    assert re.search(r"^short +[\d,]+ ", printed, re.MULTILINE)
    names = ["rumelhart1986_families.svg", "rumelhart1986_symmetry.svg"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        text = (folder / name).read_text()
        assert text.startswith("<?xml")
        assert 20_000 < len(text) < 100_000


def test_pictures_have_the_same_bytes_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    import rumelhart1986_plot

    found = example.symmetry([1], sweeps=600)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rumelhart1986_plot.symmetry(tmp_path / name / "picture.svg", found)
    a, b = ((tmp_path / name / "picture.svg").read_bytes() for name in ("a", "b"))
    assert a == b


def test_bad_arguments(capsys):
    with pytest.raises(SystemExit) as caught:
        example.main(["--seeds", "0"])
    assert caught.value.code == 2
    assert "--seeds: one at least" in capsys.readouterr().err


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "rumelhart1986_plot", raising=False)
    with pytest.raises(SystemExit, match=r'needs matplotlib .*pip install "gpugrad\[examples\]"'):
        example.main(["--plot", str(tmp_path)])
