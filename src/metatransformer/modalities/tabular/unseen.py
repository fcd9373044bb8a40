"""Words of a table that training never saw: counted while rows are read, told where they are many."""

from collections import Counter, defaultdict
from collections.abc import Collection

from metatransformer.data.records import listing

TRUTHS = {True: {"true", "t", "yes", "y", "1", "on"}, False: {"false", "f", "no", "n", "0", "off"}}
SHARE = 0.2  # of a column's cells; below, new words are what any new data brings


def same_truth(word: str, known: Collection[str]) -> str:
    """Returns the known word of the same truth value where a column knows nothing else: True for TRUE, yes, 1."""
    if word in known or len(known) != 2:
        return word
    truths = {_truth(one): one for one in known}
    return truths.get(_truth(word), word) if truths.keys() == {True, False} else word


def _truth(word: str) -> bool | None:
    return next((truth for truth, words in TRUTHS.items() if word.lower() in words), None)


class UnseenWords:
    """Counts cells by column."""

    def __init__(self) -> None:
        self._cells: Counter[str] = Counter()
        self._unseen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def count(self, column: str, word: str, *, unseen: bool) -> None:
        """Counts one cell that is not empty."""
        self._cells[column] += 1
        if unseen:
            self._unseen[column][word] += 1

    def told(self) -> tuple[str, ...]:
        """Returns a sentence for each column with many of them, and forgets what was counted."""
        sentences = []
        for column, words in self._unseen.items():
            count, cells = sum(words.values()), self._cells[column]
            if count >= SHARE * cells:
                names = listing([repr(word) for word, _ in words.most_common()], most=3)
                sentences.append(
                    f"column '{column}': {count:,} of {cells:,} cells hold words that training never saw ({names}); "
                    "they count as unknown"
                )
        self._cells.clear()
        self._unseen.clear()
        return tuple(sentences)
