"""Looking for many byte strings finds what looking for each of them finds."""

import random

from pipelines.byte_search import ByteSearch


def test_it_finds_what_python_finds_across_chunks_of_any_size() -> None:
    dice = random.Random(0)
    for _ in range(200):
        data = bytes(dice.choices(b"ab/", k=dice.randrange(120)))
        places = [(dice.randrange(len(data) + 1), dice.randrange(1, 30)) for _ in range(8)]
        strings = {data[a : a + n] or b"a" for a, n in places} | {bytes(dice.choices(b"ab/", k=dice.randrange(1, 12)))}
        size = dice.randrange(1, 40)
        chunks = [data[k : k + size] for k in range(0, len(data), size)]
        assert ByteSearch(strings).found_in(chunks) == {s for s in strings if s in data}


def test_nothing_to_look_for_is_found_nowhere() -> None:
    assert ByteSearch([]).found_in([b"anything at all"]) == set()
