"""Each pattern's configuration shows what the pattern is about; without its setting it does not."""

from pathlib import Path

import pytest

from pipeline.patterns import effects


@pytest.mark.prove
@pytest.mark.parametrize("number", sorted(effects.files()))
def test_the_effect_is_there_and_without_the_setting_it_is_not(number: int, tmp_path: Path) -> None:
    there, words = effects.shown(number, tmp_path)
    assert there, words
