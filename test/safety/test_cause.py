"""A cause and its remedy, as values and as the text that is published."""

from safe_support_ql.safety.cause import NONE, Cause


def test_the_text_names_cause_and_remedy() -> None:
    assert str(Cause("the scan is old", "look at its driver")) == "the scan is old; look at its driver"
    assert str(Cause("the scan is old")) == "the scan is old"
    assert Cause.of("blind; uncover it, then wait") == Cause("blind", "uncover it, then wait")
    assert Cause("late").then("reset") == Cause("late", "reset")
    assert str(Cause("late", "wait").then("reset")) == "late; wait, then reset"


def test_no_cause_is_false() -> None:
    assert not NONE and not str(NONE) and Cause("late")
