"""The type of a cause: why the gate does not do what was asked of it, and what helps. The texts are in reasons.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """What is wrong and what to do about it; false where nothing is. `remedy` is '' where the cause names none."""

    what: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, text: str) -> Cause:
        """What str() made a text of: a robot, which knows no Cause, writes its objections as "what; remedy"."""
        what, _, remedy = text.partition("; ")
        return cls(what, remedy)

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    def __bool__(self) -> bool:
        return bool(self.what)

    def then(self, step: str) -> Cause:
        """The same with one more step at the end of the remedy."""
        return Cause(self.what, f"{self.remedy}, then {step}" if self.remedy else step)


NONE = Cause()
