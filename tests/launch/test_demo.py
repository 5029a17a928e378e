import hashlib
import json
import re

import pytest
import torch
from mmengine.logging import MMLogger

from mmseg_resample.cli import main
from mmseg_resample.launch import demo


@pytest.fixture(autouse=True)
def _loggers():
    yield
    MMLogger._instance_dict.clear()  # a logger writes to the stderr of the test that made it for ever


def test_the_weights_are_those_that_the_provenance_tells_of():
    provenance = json.loads(demo.PROVENANCE.read_text(encoding="utf-8"))
    content = demo.WEIGHTS.read_bytes()
    assert provenance["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(content) < 300_000 and provenance["policy"] == demo.POLICY and not provenance["git"]["dirty"]
    assert all(isinstance(value, torch.Tensor) for value in torch.load(demo.WEIGHTS, weights_only=True).values())


def test_it_sees_fixes_and_measures(tmp_path, capsys):
    assert main(["demo", "--out-dir", str(tmp_path / "pictures"), "--theme", "dark"]) == 0
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "features meet up to 14 px apart (cat in decode_head)" in text
    assert "registers everything, with 512x1024 padded to 513x1025. Features reach the border." in text
    rows = dict(re.findall(r"(align_corners=False|as trained) ([\d.]+) ", text))
    assert float(rows["as trained"]) > 75 > 60 > float(rows["align_corners=False"])
    shift = float(re.search(r"align_corners=False [\d.]+ ([+-][\d.]+) px", text)[1])
    assert abs(shift - 3.5) < 0.5  # trained where features are; read 3.5 px up and left of there
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "after.png", "before.png", "predictions.png",
    ]  # fmt: skip


def test_in_a_terminal_scenes_are_drawn_in_half_blocks():
    image = torch.arange(8 * 8 * 3, dtype=torch.uint8).reshape(8, 8, 3).numpy()
    rows = demo._blocks(image, 4)
    assert [row.plain for row in rows] == ["▀▀▀▀"] * 2
    colours = [span.style for span in rows[0].spans]
    assert tuple(colours[1].color.triplet) == tuple(image[1, 3]) and tuple(colours[1].bgcolor.triplet) == tuple(
        image[3, 3]
    )
