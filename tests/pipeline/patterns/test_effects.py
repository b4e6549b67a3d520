"""Each pattern's configuration shows what the pattern is about; without its setting it does not."""

from pathlib import Path

import pytest

from pipeline.patterns import effects


@pytest.mark.prove
@pytest.mark.parametrize("number", sorted(effects.files()))
def test_the_effect_is_there_and_without_the_setting_it_is_not(number: int, tmp_path: Path) -> None:
    run, without = effects.runs(number, tmp_path)
    judge = effects.EFFECTS[number].judge
    there, words = judge(run, without)
    assert there, words
    if without is not run:
        there, words = judge(without, without)
        assert not there, words
