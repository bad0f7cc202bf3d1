from __future__ import annotations

import random

import pytest

from perdure.formats.polynomial import DEGREE, is_irreducible, random_irreducible, remainder

# from repositories that restic made, and from its documentation
OF_RESTIC = [0x3079A0609528B7, 0x25B468838DCB75]


def product(first: int, second: int) -> int:
    result = 0
    while second:
        if second & 1:
            result ^= first
        first, second = first << 1, second >> 1
    return result


@pytest.mark.parametrize("polynomial", OF_RESTIC)
def test_those_of_restic_are_irreducible(polynomial: int) -> None:
    assert is_irreducible(polynomial)


def test_products_are_not() -> None:
    drawn = random.Random(1)
    for degree in range(1, 27):
        first = 1 << degree | drawn.getrandbits(degree) | 1
        second = 1 << (DEGREE - degree) | drawn.getrandbits(DEGREE - degree) | 1
        assert not is_irreducible(product(first, second))


def test_other_degrees_are_not() -> None:
    assert not is_irreducible(0b111)
    assert not is_irreducible(OF_RESTIC[0] << 1)


def test_drawing() -> None:
    drawn = random.Random(2)
    made = {random_irreducible(drawn.getrandbits) for _ in range(5)}

    assert len(made) == 5
    assert all(is_irreducible(polynomial) for polynomial in made)


def test_remainder() -> None:
    # x**3 + 1 = (x + 1) * (x**2 + x + 1)
    assert remainder(0b1001, 0b111) == 0
    assert remainder(0b1000, 0b111) == 1
    assert remainder(0b10, 0b111) == 0b10
