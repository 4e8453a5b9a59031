"""Errors whose message is meant for the user: one line that says what is wrong and how to mend it."""


class AdvGANError(Exception):
    """A problem the user can mend. The doors print its message on one line and exit with code 2."""


class ConfigurationError(AdvGANError):
    """A configuration that cannot work.

    Args:
        key: dotted key of the setting at fault, for example ``attack.epsilon``.
        value: the value that was given.
        problem: what is wrong, the allowed range and the fix.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        self.key = key
        self.value = value
        super().__init__(f"{key} = {value!r}: {problem}")


class NonFiniteError(AdvGANError):
    """Training produced a NaN or an infinity.

    Args:
        term: the first term that was not finite, as named in ``metrics.jsonl``.
        step: the optimizer step (counted from 1) at which it happened.
    """

    def __init__(self, term: str, step: int) -> None:
        self.term = term
        self.step = step
        super().__init__(
            f"{term} is not finite at step {step}: the run stopped before saving it; "
            "lower generator.learning_rate or discriminator.learning_rate, then start a new run"
        )
