"""Polynomials over GF(2), as integers: bit i is the coefficient of x**i.

A repository carries an irreducible polynomial of degree 53, which restic's chunker reduces by. It
is random, so that the places at which a file is cut tell less about the file.
"""

from __future__ import annotations

from collections.abc import Callable

DEGREE = 53


def remainder(value: int, modulus: int) -> int:
    """Give ``value`` modulo ``modulus``."""
    degree = modulus.bit_length()
    while (excess := value.bit_length() - degree) >= 0:
        value ^= modulus << excess
    return value


def is_irreducible(candidate: int) -> bool:
    """Tell whether a polynomial of degree 53 has no factor but itself and 1.

    53 is prime, so by Rabin's test it is irreducible exactly if x**(2**53) = x modulo it and it has
    no factor of degree 1.
    """
    if candidate.bit_length() != DEGREE + 1:
        return False
    if not candidate & 1 or candidate.bit_count() % 2 == 0:  # divisible by x, by x + 1
        return False
    power = 2
    for _ in range(DEGREE):
        power = remainder(_squared(power), candidate)
    return power == 2


def _squared(value: int) -> int:
    # The square of a sum is the sum of the squares: a zero goes between any two bits.
    return int("0".join(f"{value:b}"), 2)


def random_irreducible(random_bits: Callable[[int], int]) -> int:
    """Draw an irreducible polynomial of degree 53; ``random_bits(n)`` gives n random bits."""
    while True:
        candidate = 1 << DEGREE | random_bits(DEGREE - 1) << 1 | 1
        if is_irreducible(candidate):
            return candidate
