"""A patch restores the very object that it replaced, and nothing that other code has set since."""

from prela_stream.instrumentation.patching import Patch


def test_it_restores_the_same_object() -> None:
    class Owner:
        def method(self) -> int:
            return 1

    original = vars(Owner)["method"]
    patch = Patch(Owner, "method", lambda _: 2)
    assert Owner().method() == 2
    assert (patch.replaces(Owner, "method"), patch.replaces(Owner, "other"), patch.replaces(object, "method")) == (
        True,
        False,
        False,
    )
    assert patch.restore()
    assert vars(Owner)["method"] is original


def test_a_later_patch_stays() -> None:
    class Owner:
        def method(self) -> int:
            return 1

    first = Patch(Owner, "method", lambda _: 2)
    second = Patch(Owner, "method", lambda _: 3)
    assert not first.restore()
    assert Owner().method() == 3
    assert second.restore()
    assert first.restore()
    assert Owner().method() == 1
