"""Text from a seed that compresses as the text of a site does: 3 to 4 times with zstd -3."""

from __future__ import annotations

from itertools import accumulate
from random import Random

SYLLABLES = [
    c + v + e for c in "bcdfghklmnprstvwz" for v in "aeiou" for e in ("", "n", "r", "s", "l", "t")
]


def _zipf(count: int, exponent: float) -> list[float]:
    return list(accumulate(1 / (rank + 2) ** exponent for rank in range(count)))


class Prose:
    """A vocabulary with turns of speech, both used as often as their rank says (Zipf)."""

    def __init__(self, rng: Random, words: int = 16000, phrases: int = 24000) -> None:
        self.words = sorted(
            {
                "".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4))))
                for _ in range(words)
            }
        )
        rng.shuffle(self.words)
        self.numbers = {word: number for number, word in enumerate(self.words)}
        self._word_weights = _zipf(len(self.words), 0.8)
        self.phrases = [" ".join(self.some_words(rng, rng.randint(2, 5))) for _ in range(phrases)]
        self._phrase_weights = _zipf(phrases, 0.5)

    def some_words(self, rng: Random, count: int) -> list[str]:
        """Give words, the frequent ones more often."""
        return rng.choices(self.words, cum_weights=self._word_weights, k=count)

    def title(self, rng: Random) -> str:
        """Give a few words, each with a capital letter."""
        return " ".join(self.some_words(rng, rng.randint(2, 6))).title()

    def sentence(self, rng: Random) -> str:
        """Give one sentence: turns of speech with words between them."""
        parts = rng.choices(self.phrases, cum_weights=self._phrase_weights, k=rng.randint(2, 5))
        parts[1:1] = self.some_words(rng, 5)
        return " ".join(parts).capitalize() + "."

    def paragraph(self, rng: Random) -> str:
        """Give two to six sentences as a paragraph of HTML."""
        return "<p>" + " ".join(self.sentence(rng) for _ in range(rng.randint(2, 6))) + "</p>"

    def text(self, rng: Random) -> list[str]:
        """Give the paragraphs of a document; few documents are long (up to about 40 kB)."""
        return [self.paragraph(rng) for _ in range(min(int(rng.paretovariate(0.9)), 55))]
