from __future__ import annotations

import sys

import pytest

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.registry import Entry, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry(
        "codec",
        [
            Entry("patch", ".blend:reflect_index", "facts of patch"),
            Entry("wan", ".never.imported:make", "facts of wan"),
        ],
    )


def test_get_builds_on_demand(registry: Registry) -> None:
    assert registry.get("patch").build(3, 5).tolist() == [0, 1, 2, 1, 0]
    assert registry.get("wan").facts == "facts of wan"  # its module does not even exist
    assert [entry.name for entry in registry] == ["patch", "wan"]
    assert "wan" in registry and "pach" not in registry


def test_near_miss_is_hinted_at(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.get("pach")
    assert str(caught.value) == ("unknown codec 'pach': did you mean 'patch'? known are patch, wan")


def test_far_miss_lists_the_known(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"unknown codec 'zzz': known are patch, wan$"):
        registry.get("zzz")


def test_two_of_one_name_are_a_mistake() -> None:
    entry = Entry("twice", ".codecs.patch:encode", None)
    with pytest.raises(ValueError, match="codec entries share"):
        Registry("codec", [entry, entry])


def test_listing_imports_no_factory(registry: Registry) -> None:
    before = set(sys.modules)
    list(registry)
    assert "dtg_restore.engine.never" not in set(sys.modules) - before
