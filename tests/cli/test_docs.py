"""The generated pages are those that the code would write now."""

import pytest

from anydim.cli.docs import FOLDER, pages
from anydim.config import all_settings


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_generated_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_setting_stands_on_the_settings_page() -> None:
    text = pages()["config.md"]
    for setting in all_settings():
        assert text.count(f"`{setting.variable}`") == 1
