"""How many there were in the last seconds, in one-second buckets.

Knows no clock: `now` is passed in, in monotonic seconds.
"""


class Window:
    """A ring of one-second buckets with a running total: adding and asking cost the same at any rate.

    The window is the current second and the whole seconds before it,
    so it covers more than `length_s - 1` and at most `length_s` seconds.
    A `now` that is a little older than the last one, because two calls read the clock
    before either was counted, belongs to the current bucket.
    """

    __slots__ = ("_buckets", "_second", "_total")

    def __init__(self, length_s: int) -> None:
        self._buckets = [0] * length_s
        self._second = 0
        self._total = 0

    def add(self, now: float) -> None:
        """One more, now."""
        if now >= self._second + 1:
            self._move_on(now)
        self._buckets[self._second % len(self._buckets)] += 1
        self._total += 1

    def total(self, now: float) -> int:
        """How many there were in the window that ends now."""
        if now >= self._second + 1:
            self._move_on(now)
        return self._total

    def this_second(self, now: float) -> int:
        """How many there were since the last whole second of the clock."""
        if now >= self._second + 1:
            self._move_on(now)
        return self._buckets[self._second % len(self._buckets)]

    def clear(self) -> None:
        """Forget all that was counted."""
        self._buckets = [0] * len(self._buckets)
        self._total = 0

    def _move_on(self, now: float) -> None:
        """Empty the buckets of the seconds that have begun; after a long idle time, each bucket once."""
        buckets, second = self._buckets, int(now)
        for passed in range(min(second - self._second, len(buckets))):
            at = (second - passed) % len(buckets)
            self._total -= buckets[at]
            buckets[at] = 0
        self._second = second
