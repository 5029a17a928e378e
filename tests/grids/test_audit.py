import io
import json

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from rich.console import Console

from mmseg_resample.grids import Offset, picture
from mmseg_resample.grids.report import grouped, render, to_json
from mmseg_resample.grids.words import describe, in_pixels
from mmseg_resample.launch.auditing import audit_config, input_size

from .test_networks import CONFIGS


@pytest.fixture(scope="module")
def upernet():
    return audit_config(get_config(CONFIGS["upernet_r18"]), "upernet_r18", [(512, 1024), (513, 1025)])


def test_what_each_pixel_model_gives(upernet):
    final = {key: [in_pixels(a.final.x) for a in audits] for key, audits in upernet.passes.items()}
    assert final == {
        "config": ["-1.5", "-1.5 .. 1.5"],
        "False": ["-1.5", "-1.5 .. 1.5"],
        "True": ["0 .. -3", "0"],
        "exact": ["0", "0"],
    }
    size, fitting = upernet.fitting
    assert size == (513, 1025)
    assert all(m.pooled for m in fitting.misregistered) and fitting.misregistered


def test_the_verdict_in_words(upernet):
    text = describe(upernet)
    for part in (
        "align_corners=False reads 1.5 px up and left of the labels everywhere at 512x1024",
        "align_corners=True drifts from +0 to -3 px along y",
        "meet up to 14 px apart (cat in decode_head)",
        "True is exact at 513x1025 but for pooled bins",
        "register everything",
        "RandomResize puts labels +0.5 px right",
    ):
        assert part in text, text


def test_registered_networks_are_called_so():
    text = describe(audit_config(get_config(CONFIGS["unet"]), "unet", [(256, 256)]))
    assert "is registered with the labels at 256x256" in text and "Everything is registered as it stands." in text


def test_hard_coded_resizes_are_named():
    comparison = audit_config(get_config(CONFIGS["hrnet"]), "hrnet", [(128, 256)])
    assert "resizes are hard-coded" in describe(comparison)
    assert ("decode_head.logits", 0) not in comparison.hard_coded and len(comparison.hard_coded) > 10


def test_images_of_four_channels():
    config = get_config(CONFIGS["upernet_r18"])
    config.model.backbone.in_channels = 4
    config.model.resize_policy, config.model.type = dict(exact=True), "ResampledSegmentor"
    assert audit_config(config, "rgbd", [(128, 256)]).passes["config"][0].final.worst < 1e-3


def test_tables_json_and_pictures(upernet, tmp_path):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(upernet, everything=True))
    text = console.export_text()
    for part in ("Levels", "16x32 -> 128x256 bilinear False", "0.125 i +0", "-14"):
        assert part in text
    found = json.loads(json.dumps(to_json(upernet)))
    assert found["schema"] == 1 and len(found["audits"]["config"]) == 2
    assert found["audits"]["config"][0]["worst"] == 14
    assert {tuple(m["maps"][0].values()) for m in found["audits"]["exact"][0]["exact_maps"]} >= {
        (0.5, 0.0),
        (0.25, 0.0),
    }
    for name in ("audit.png", "audit.svg"):
        upernet.plot(tmp_path / name, theme="dark")
        assert (tmp_path / name).stat().st_size > 20000
    with pytest.raises(ValueError, match="expected theme to be one of 'light', 'dark', got 'sepia'"):
        upernet.plot(tmp_path / "audit.png", theme="sepia")


def test_a_picture_has_every_ring_where_the_network_takes_its_dot_to_be(upernet):
    figure = picture._figure(upernet, picture.THEMES["light"])
    corners = [axes for axes in figure.axes if len(axes.collections) == 3]
    assert len(corners) == 2 * 4  # strides 32, 16, 8 and the prediction; first and last corner
    assert len(grouped(upernet.now.misregistered)) == 3 + 1  # -8 px, of stride 32 as well
    assert any("1 more finding is in the tables." in text.get_text() for text in figure.texts)
    titles = [text.get_text() for axes in corners for text in axes.texts]
    assert titles[::2] == ["-14 px, constant", "-4 px, constant", "-2 px, constant", "-1.5 px, constant"]
    for axes, stride, shift in zip(corners, (32, 32, 16, 16, 8, 8, 4, 4), (14, 14, 4, 4, 2, 2, 1.5, 1.5), strict=True):
        _, rings, dots = (collection.get_offsets() for collection in axes.collections)
        for (ring_x, ring_y), (x, y) in zip(rings, dots, strict=True):
            assert round(x, 6) % stride == round(y, 6) % stride == 0  # odd kernels
            assert abs(ring_x - x - shift) < 1e-6 and abs(ring_y - y - shift) < 1e-6
    shaded = [patch for patch in corners[1].patches if patch.get_alpha() == 0.45]
    assert {(p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in shaded} == {
        (1023.5, 511.5),
        (1023.5, 480.5),
    }


def test_of_a_policy_it_is_said_first_what_it_does():
    config = get_config(CONFIGS["upernet_r18"])
    config.model.update(type="ResampledSegmentor", resize_policy=dict(exact=True, pad="replicate"))
    found = audit_config(config, "padded", [(128, 256)])
    assert found.padded == (129, 257)
    assert describe(found).startswith(
        "resize_policy=dict(exact=True, pad='replicate') registers everything, with 128x256 padded to 129x257. "
        "Features reach the border. Without it, align_corners=False reads 1.5 px up and left"
    )
    assert found.passes["False"][0].worst == 14 and found.worst < 1e-3
    assert [each.action for each in found.advice] == []
    text = str(found)
    assert "align_corners=False, no policy" in text and "as configured" in text


def test_narrow_tables_cut_nothing(upernet):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(upernet))
    text = console.export_text()
    assert "…" not in text
    for start in (" 512x1024  align_corners=False ", " 512x1024  align_corners=True ", " auxiliary_head  labels "):
        assert any(line.startswith(start) for line in text.splitlines()), text


def test_nothing_to_list_is_a_line():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(audit_config(get_config(CONFIGS["unet"]), "unet", [(256, 256)])))
    text = console.export_text()
    assert "Meetings that are misregistered: none at 256x256.\nResizes that need a change: none at 256x256.\n" in text
    assert "a resize can repair" not in text and "exact map" not in text


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (Offset(-3.5, -3.5, -3.5), "-3.5"),
        (Offset(-0.0, -3.5, -7.0), "0 .. -7"),
        (Offset(0.0, 0.0, 0.0), "0"),
        (None, "-"),
    ],
)
def test_offsets_in_pixels(offset, text):
    assert in_pixels(offset) == text


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"crop_size": (64, 96), "model": {"data_preprocessor": {"size": (32, 32)}}}, (64, 96)),
        ({"model": {"data_preprocessor": {"size": 32}}}, (32, 32)),
        ({"model": {}}, (512, 1024)),
    ],
)
def test_the_size_that_a_config_trains_at(config, size):
    assert input_size(Config(config)) == size
