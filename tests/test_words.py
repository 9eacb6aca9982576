"""Texts as words."""

from __future__ import annotations

from lightning_diffaug.words import encoded, numbers, text_hashes, vocabulary, words


def test_words_are_letters_and_digits_with_hyphens_inside_whatever_the_case() -> None:
    assert words("The digit 7: top-heavy, don't—lean_left! Größe \uff21\uff22") == [
        "the", "digit", "7", "top-heavy", "don't", "lean", "left", "grösse", "ab",
    ]  # fmt: skip
    assert words("…") == []


def test_a_vocabulary_is_by_frequency_then_by_the_alphabet() -> None:
    found = vocabulary(["b a", "a c", "A b d"], most=3)
    assert found == ["a", "b", "c"]
    assert encoded(["c a x", ""], numbers(found), 4).tolist() == [[4, 2, 1, 0], [0, 0, 0, 0]]
    assert encoded(["a b c a"], numbers(found), 2).tolist() == [[2, 3]]


def test_texts_of_the_same_words_have_one_hash_in_every_process() -> None:
    found = text_hashes(["Bold, seven", "bold  seven!", "seven bold", "boldseven", "♥", " ♥ ", "♦", ""]).tolist()
    assert found[0] == found[1]
    assert found[4] == found[5]
    assert len(set(found)) == 6
    assert found[0] == 1598100941772179328
