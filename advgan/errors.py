"""Errors whose message is meant for the user: one line that says what is wrong and how to fix it."""

import re
import reprlib


class AdvGANError(Exception):
    """A problem the user can fix. The commands print its message on one line and exit with code 2."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SECRET = re.compile(r"(?<![a-z])h[ea]+d|auth|bearer|cookie|token|secret|password|api.?key", re.IGNORECASE)
"""A key that holds an HTTP header, misspelled or not."""


def may_hold_a_secret(key: str, value: object) -> bool:
    """Whether a setting may be an HTTP header, whose value is not to be shown, even where the key is a wrong one."""
    if isinstance(value, dict):
        return any(may_hold_a_secret(f"{key}.{below}", value[below]) for below in value)
    text = value if isinstance(value, str) else ""
    if key == "--set":
        key, _, text = text.partition("=")
    return _SECRET.search(key) is not None or re.match("bearer ", text, re.IGNORECASE) is not None


class ConfigurationError(AdvGANError):
    """A configuration that cannot work.

    Args:
        key: dotted key of the setting at fault, for example ``attack.epsilon``.
        value: the value that was given; neither shown nor kept where it may be a secret, such as of ``oracle.headers``.
        problem: what is wrong, the allowed range and the fix.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        hidden = may_hold_a_secret(key, value)
        self.key = key
        self.value = None if hidden else value
        super().__init__(f"{key}: {problem}" if hidden else f"{key} = {_SHORT.repr(value)}: {problem}")


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
