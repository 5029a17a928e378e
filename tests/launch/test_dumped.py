import math

import pytest
from mmengine.config import Config

from mmseg_resample.launch.dumped import read_dumped, read_setting

CONTENT = {
    "model": {
        "type": "A",
        "size": (3, -4),
        "scales": [1.5, -1e-05, None, True],
        "text": 'it\'s "a" {text}\n',
        "classes": {"a b": {"flag": False}, "c": {}},
    },
    "limit": math.inf,
    "empty": {},
    "nested": [{"type": "B", "of": ({"a.b": [()]},)}],
}


def test_what_mmengine_dumps_comes_back():
    text = Config(CONTENT).pretty_text
    assert read_dumped(text) == CONTENT
    assert read_setting(text, "model") == CONTENT["model"] and read_setting(text, "nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "a = open('x', 'w')",
        "a = dict(b=open('x', 'w'))",
        "a = dict({'b': open('x', 'w')})",
        "a = dict(**{'b': 1})",
        "a = {**{'b': 1}}",
        "a = [b for b in (1,)]",
        "a = b = 1",
        "a.b = 1",
        "a = (",
        "a = " + "(" * 1000 + ")" * 1000,
        "a = 1\0",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"^(not a config|expected assignments|malformed node)"):
        read_dumped(text)
    assert read_setting(text, "a") is None
