"""Errors whose message is meant for the user: one line that says what is wrong and how to fix it."""

import reprlib


class AdvGANError(Exception):
    """A problem the user can fix. The commands print its message on one line and exit with code 2."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


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
        super().__init__(f"{key} = {_SHORT.repr(value)}: {problem}")


class NonFiniteError(AdvGANError):
    """Training produced a NaN or an infinity.

    Args:
        term: the first term that was not finite, as named in ``metrics.jsonl``.
        step: the optimizer step (counted from 1) at which it happened.
        setting: what to lower.
    """

    def __init__(self, term: str, step: int, setting: str) -> None:
        self.term = term
        self.step = step
        super().__init__(
            f"{term} is not finite at step {step}: the run stopped before saving it; "
            f"lower {setting}, then start a new run"
        )


class BlackBoxFailed(AdvGANError):  # noqa: N818 (as BlackBoxUnavailable)
    """The code of a black box raised an exception; what it answered before is kept."""


class Interrupted(AdvGANError):  # noqa: N818 (it is not an error)
    """The user stopped a run; its state is saved."""


class BlackBoxUnavailable(Interrupted):
    """A black box does not answer at the moment; what it answered before is kept, and the run can go on later."""
