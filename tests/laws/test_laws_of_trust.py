"""Which delta is believed: honest ones near an optimum, too; turned ones where it can be known."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.policies.elasticity import (
    DeltaSeen,
    Distrust,
    ElasticitySettings,
    Trusted,
    TrustState,
    against,
    judge,
    size_trust,
)

SETTINGS = ElasticitySettings()
seeds = st.integers(0, 2**32)

deltas_alike = st.lists(
    st.builds(
        DeltaSeen,
        island=st.sampled_from(["a", "b", "c"]),
        norm=st.floats(1.0, 2.0),
        steps=st.just(10),
        cosine=st.none() | st.floats(0.1, 0.5),
    ),
    min_size=6,
    max_size=20,
)


@given(deltas_alike, st.floats(1e-6, 4.0), st.floats(0.0, 1.0))
def test_a_delta_like_the_others_is_believed(recent, norm, cosine):
    seen = DeltaSeen(island="a", norm=norm, steps=10, cosine=cosine)
    assert size_trust(seen, recent, SETTINGS) == Trusted()
    assert against(seen, recent, SETTINGS) == 0


@given(deltas_alike, st.sampled_from([math.nan, math.inf, 1e6, 45.0, 0.0]))
def test_a_delta_of_a_wild_size_is_refused_with_a_reason(recent, norm):
    answer = size_trust(DeltaSeen(island="a", norm=norm, steps=10), recent, SETTINGS)
    assert isinstance(answer, Distrust)
    assert answer.kind == "senseless"
    assert "a" in answer.reason


def believed(chance, usual, noise, rounds=21):
    return [
        DeltaSeen(island=island, norm=1.0, steps=10, cosine=chance.gauss(usual, noise))
        for _ in range(rounds)
        for island in "abc"
    ]


@given(seeds, st.floats(0.0, 0.12), st.floats(0.01, 0.06))
def test_noise_about_zero_is_no_evidence(seed, usual, noise):
    chance = random.Random(seed)
    recent = believed(chance, usual, noise)
    cosine = max(-0.15, chance.gauss(usual, noise))
    seen = DeltaSeen(island="a", norm=1.0, steps=10, cosine=cosine)
    assert against(seen, recent, SETTINGS) <= SETTINGS.evidence_max


@given(seeds, st.floats(0.17, 0.95))
def test_one_turned_delta_is_enough_where_honest_ones_go_one_way(seed, usual):
    chance = random.Random(seed)
    recent = believed(chance, usual, 0.02)
    seen = DeltaSeen(island="a", norm=1.0, steps=10, cosine=-usual)
    assert against(seen, recent, SETTINGS) > SETTINGS.evidence_max


@given(seeds, st.floats(0.06, 0.17), st.floats(0.01, 0.06))
def test_a_chip_that_turns_signs_is_found_in_the_end(seed, usual, noise):
    chance = random.Random(seed)
    recent = [one for one in believed(chance, usual, noise, 40) if one.island != "a"][-43:]
    for _ in range(60):
        cosine = chance.gauss(-usual, noise)
        seen = DeltaSeen(island="a", norm=1.0, steps=10, cosine=cosine)
        if against(seen, recent, SETTINGS) > SETTINGS.evidence_max:
            return
        more = believed(chance, usual, noise, 1)[1:]
        recent = [*recent, seen, *more][-SETTINGS.seen_max :]
    raise AssertionError("it was believed for 60 rounds")


def vectors(chance, islands, noise, dimension=60):
    """Of each island the same direction and noise of its own."""
    along = [chance.gauss(0, 1) for _ in range(dimension)]
    return {name: [x + noise * chance.gauss(0, 1) for x in along] for name in islands}


def judged(state, made):
    products = [
        [sum(x * y for x, y in zip(a, b, strict=True)) for b in made.values()]
        for a in made.values()
    ]
    seen = [
        DeltaSeen(island=name, norm=math.sqrt(products[at][at]), steps=10)
        for at, name in enumerate(made)
    ]
    state, words = judge(state, seen, products, SETTINGS)
    return state, dict(zip(made, words, strict=True))


def after_rounds(chance, islands, rounds=6):
    state = TrustState()
    for _ in range(rounds):
        state, words = judged(state, vectors(chance, islands, 0.3))
        assert set(words.values()) == {Trusted()}
    return state


@settings(max_examples=40)
@given(seeds, st.sampled_from("abcd"), st.floats(1.0, 4.0))
def test_whoever_goes_against_the_others_is_refused_alone_however_long_its_delta(seed, who, size):
    chance = random.Random(seed)
    state = after_rounds(chance, "abcd")
    made = vectors(chance, "abcd", 0.3)
    made[who] = [-size * x for x in made[who]]
    _, words = judged(state, made)
    assert [name for name, word in words.items() if word != Trusted()] == [who]
    assert words[who].kind == "against"


@settings(max_examples=20)
@given(seeds, st.sampled_from("abc"))
def test_a_chip_that_goes_on_turning_signs_is_to_begin_anew_and_no_other_is(seed, who):
    chance = random.Random(seed)
    state = after_rounds(chance, "abc")
    kinds = []
    for _ in range(SETTINGS.against_max + 3):
        made = vectors(chance, "abc", 0.3)
        made[who] = [-x for x in made[who]]
        state, words = judged(state, made)
        assert all(word == Trusted() for name, word in words.items() if name != who)
        kinds.append(words[who].kind)
    assert kinds == ["against"] * SETTINGS.against_max + ["turned"] * 3


def test_an_island_that_goes_along_again_is_forgiven():
    chance = random.Random(1)
    state = after_rounds(chance, "abc")
    for _ in range(SETTINGS.against_max):
        made = vectors(chance, "abc", 0.3)
        made["a"] = [-x for x in made["a"]]
        state, _ = judged(state, made)
        assert dict(state.times_against) == {"a": 1}
        state, _ = judged(state, vectors(chance, "abc", 0.3))
        assert state.times_against == ()


@settings(max_examples=20)
@given(seeds, st.sampled_from(["ab", "abc"]))
def test_of_two_islands_that_oppose_each_other_nobody_can_say_which_is_right(seed, before):
    chance = random.Random(seed)
    state = after_rounds(chance, before)
    made = vectors(chance, "ab", 0.3)
    made["b"] = [-x for x in made["b"]]
    state, words = judged(state, made)
    assert {word.kind for word in words.values()} == {"against"}
    assert state.rounds_doubted == 1
    assert state.times_against == ()  # neither is to end for it


def turned_by(chance, islands, who):
    made = vectors(chance, islands, 0.3)
    made[who] = [-x for x in made[who]]
    return made


@settings(max_examples=20)
@given(seeds)
def test_an_island_that_went_against_the_others_is_not_believed_alone(seed):
    chance = random.Random(seed)
    state, _ = judged(after_rounds(chance, "abc"), turned_by(chance, "abc", "b"))
    state, words = judged(state, turned_by(chance, "b", "b"))
    assert isinstance(words["b"], Distrust)
    assert "without others to compare with" in words["b"].reason
    assert dict(state.times_against) == {"b": 1}  # nothing new is known of it
    state, words = judged(state, vectors(chance, "a", 0.3))
    assert words["a"] == Trusted()


@settings(max_examples=20)
@given(seeds)
def test_of_two_that_oppose_each_other_the_one_that_did_so_before_is_wrong(seed):
    chance = random.Random(seed)
    state, _ = judged(after_rounds(chance, "abc"), turned_by(chance, "abc", "b"))
    for _ in range(SETTINGS.rounds_doubted_max + 2):
        state, words = judged(state, turned_by(chance, "ab", "b"))
        assert words["a"] == Trusted()
        assert isinstance(words["b"], Distrust)


def test_an_island_alone_for_good_is_believed_in_the_end():
    chance = random.Random(0)
    state, _ = judged(after_rounds(chance, "abc"), turned_by(chance, "abc", "b"))
    verdicts = []
    for _ in range(SETTINGS.rounds_doubted_max + 1):
        state, words = judged(state, vectors(chance, "b", 0.3))
        verdicts.append(words["b"] == Trusted())
    assert verdicts == [False] * SETTINGS.rounds_doubted_max + [True]


def test_after_some_rounds_of_which_nothing_is_believed_the_usual_has_changed():
    chance = random.Random(0)
    state = after_rounds(chance, "abc")
    kinds = []
    for _ in range(4):
        made = vectors(chance, "abc", 1.0)
        longer = {name: [100 * x for x in delta] for name, delta in made.items()}
        state, words = judged(state, longer)
        kinds.append({isinstance(word, Trusted) for word in words.values()})
    assert kinds == [{False}, {False}, {True}, {True}]


def test_what_is_not_finite_is_never_believed():
    state = TrustState(rounds_doubted=2)
    seen = [DeltaSeen(island="a", norm=math.inf, steps=10)]
    for _ in range(5):
        state, words = judge(state, seen, [[math.inf]], SETTINGS)
        assert isinstance(words[0], Distrust)
