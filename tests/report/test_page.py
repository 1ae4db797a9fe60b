import configparser
from pathlib import Path

import pytest

from vis_jax.report.page import SCRIPTS, STYLE, render

ROOT = Path(__file__).parents[2]
CONTENT = {"title": "x", "videos": []}


def test_the_package_has_the_parts_of_the_page():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["vis_jax.report"].split(", ")
    folder = ROOT / "vis_jax" / "report"
    packed = {path.name for pattern in patterns for path in folder.glob(pattern)}
    assert packed == {*SCRIPTS, STYLE}
    assert {path.name for path in (folder / "assets").iterdir()} == packed


def test_a_title_is_text():
    page = render(CONTENT | {"title": "</title><script>x</script>"})
    assert "&lt;/title&gt;&lt;script&gt;" in page
    assert page.count("<script") == 2


def test_a_number_that_json_lacks_is_an_error():
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(CONTENT | {"AP": float("nan")})
