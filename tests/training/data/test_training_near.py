"""Near duplicates: how many planted ones are found, and what is taken for one wrongly."""

import numpy as np

from argosy.training.data.near import PLACES, WordHashes, near_duplicates, signature

_SHARE = 0.8


def test_planted_near_duplicates_are_found_and_others_are_not():
    chance = np.random.default_rng(0)
    words = WordHashes()
    originals = [_words(chance, 300) for _ in range(120)]
    found = {"near": [], "far": []}
    for original in originals:
        for kind, edits in (("near", 2), ("far", 30)):
            copy = _edited(original, edits, chance)
            share = _share(original, copy)
            assert share > 0.9 if kind == "near" else share < 0.7
            signed = [signature(" ".join(one), words) for one in (original, copy)]
            found[kind].append(bool(near_duplicates(np.stack(signed), _SHARE)[1]))
    assert np.mean(found["near"]) >= 0.98
    assert np.mean(found["far"]) <= 0.02


def test_signatures_estimate_the_share_that_is_true():
    chance = np.random.default_rng(1)
    words = WordHashes()
    errors = []
    for edits in range(1, 60, 2):
        original = _words(chance, 400)
        copy = _edited(original, edits, chance)
        one, other = (signature(" ".join(some), words) for some in (original, copy))
        errors.append(float(np.mean(one == other)) - _share(original, copy))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 2 * np.sqrt(0.25 / PLACES)


def test_of_three_alike_the_first_stays_and_unlike_ones_stay_all():
    chance = np.random.default_rng(2)
    words = WordHashes()
    same, other = _words(chance, 200), _words(chance, 200)
    texts = [same, other, same, same]
    signatures = np.stack([signature(" ".join(one), words) for one in texts])
    assert near_duplicates(signatures, _SHARE).tolist() == [False, False, True, True]


def test_a_document_alike_only_to_a_dropped_one_stays():
    signatures = np.zeros((3, PLACES), dtype=np.uint32)
    signatures[1, :20] = 1  # 0.83 like the first
    signatures[2, :20] = 1  # 0.83 like the second, 0.67 like the first
    signatures[2, 100:] = 2
    assert near_duplicates(signatures, _SHARE).tolist() == [False, True, False]


def test_long_runs_of_equal_bands_are_compared_without_all_their_pairs():
    signatures = np.zeros((1000, PLACES), dtype=np.uint32)
    assert near_duplicates(signatures, _SHARE).tolist() == [False] + [True] * 999


def test_too_few_words_have_no_signature():
    assert signature("four words are few", WordHashes()) is None
    assert not near_duplicates(np.empty((0, PLACES), dtype=np.uint32), _SHARE).size


def _words(chance: np.random.Generator, count: int) -> list[str]:
    return [f"w{number}" for number in chance.integers(0, 5000, size=count)]


def _edited(words: list[str], edits: int, chance: np.random.Generator) -> list[str]:
    copy = list(words)
    for place in chance.choice(len(copy), size=edits, replace=False):
        copy[place] = "edited"
    return copy


def _share(one: list[str], other: list[str]) -> float:
    runs = [{tuple(some[at : at + 5]) for at in range(len(some) - 4)} for some in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])
