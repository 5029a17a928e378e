"""Every work-around does what it says, and the trouble is real without it.

The installed versions decide which work-arounds are needed; the others must leave mmcv, mmengine and torch untouched.
No test asks mmengine's hub for a config: where it does not find a package, it installs one.
"""

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import mmseg
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

import mmseg_resample  # noqa: F401  (applies the work-arounds)
from mmseg_resample import compat
from mmseg_resample.ops.psa_mask import psa_mask

REPOSITORY = Path(__file__).parents[1]
LITE = importlib.util.find_spec("mmcv._ext") is None
OFFICIAL = mmseg.__version__ == "1.2.2"  # and not a maintained fork, which guards its imports and asserts nothing
SAFE_DEFAULT = torch.__version__ >= (2, 6)


def python(code: str, *flags: str) -> str:
    """Runs ``code`` in a new interpreter and returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# The package's own __init__ would apply the work-arounds.
LOAD_COMPAT = f"""
import importlib, sys, types
package = types.ModuleType("mmseg_resample")
package.__path__ = [{str(REPOSITORY / "mmseg_resample")!r}]
sys.modules["mmseg_resample"] = package
compat = importlib.import_module("mmseg_resample.compat")
"""

TROUBLES = {
    "mmcv.ops": (LITE and OFFICIAL, "import mmseg.models"),
    "mmseg::": (
        importlib.util.find_spec("pkg_resources") is None or not OFFICIAL,
        "from mmengine.config import Config; Config.fromfile('child.py')",
    ),
    "checkpoints": (
        SAFE_DEFAULT,
        "import torch; from mmengine.logging import HistoryBuffer; from mmengine.runner import CheckpointLoader; "
        "torch.save(HistoryBuffer([1.0], [1]), 'log.pth'); "
        "CheckpointLoader.load_checkpoint('log.pth', logger='silent')",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_stock_packages_fail_without_the_work_around_and_run_with_it(trouble, tmp_path, monkeypatch):
    needed, code = TROUBLES[trouble]
    monkeypatch.chdir(tmp_path)
    Path("child.py").write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'")
    out = python(
        f"{LOAD_COMPAT}\n"
        f"try:\n    {code}\n    print('fine')\n"
        f"except Exception as error:\n    print('fails')\n"
        f"compat.apply()\n{code}\nprint('fine')"
    )
    assert out.split()[-2:] == ["fails" if needed else "fine", "fine"]


def test_apply_twice_changes_nothing():
    from mmcv.utils import ext_loader
    from mmengine.runner import checkpoint
    from mmengine.utils import package_utils

    def state():
        functions = ext_loader.load_ext, package_utils.is_installed, package_utils.get_installed_path
        return functions, checkpoint.torch, checkpoint.load_url

    before = state()
    compat.apply()
    assert state() == before


# TorchScript


@pytest.mark.parametrize(("wish", "inside"), [(None, False), ("1", True), ("0", False)])
def test_scripting_is_postponed_unless_the_user_says_otherwise(wish, inside, monkeypatch):
    if wish is not None:
        monkeypatch.setenv("PYTORCH_JIT", wish)
    out = python(
        "import torch\nfrom mmseg_resample.compat import scripting_postponed\n"
        "def script(): return isinstance(torch.jit.script(torch.nn.ReLU()), torch.jit.ScriptModule)\n"
        "with scripting_postponed(): print(script())\nprint(script())"
    )
    assert out.split()[-2:] == [str(inside), str(wish != "0")]


# scipy


@pytest.mark.parametrize("others", ["", "    import scipy.stats; from scipy.ndimage._filters import convolve\n"])
def test_scipy_is_postponed_until_it_is_needed(others):
    out = python(
        "import inspect, sys\nsys.argv = ['mmseg-resample']  # which registers nothing yet\n"
        "from mmseg_resample.compat import scipy_postponed\n"
        "with scipy_postponed():\n"
        "    from scipy.optimize import linear_sum_assignment\n"
        "    from scipy import ndimage, optimize\n"
        "    inspect.getmodule(sys._getframe())\n"
        "    print('scipy.linalg' in sys.modules)\n"
        f"{others}"
        "    print(issubclass(optimize.OptimizeResult, dict), linear_sum_assignment([[2, 1], [1, 2]])[1].tolist())\n"
        "print(ndimage.distance_transform_edt([0, 1]), type(sys.modules['scipy.ndimage']).__name__)"
    )
    assert out.splitlines()[-3:] == ["False", "True [1, 0]", "[0. 1.] module"]


# mmcv.ops


def test_all_of_mmcv_ops_and_mmseg_imports():
    import mmcv.ops
    from mmseg.utils import register_all_modules

    register_all_modules()
    for package in (mmcv.ops, mmseg):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".mim" not in module.name:
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:  # what a fork leaves to its users
                    assert not OFFICIAL and error.name.split(".")[0] in ("mmpretrain", "onedl")


def test_availability_of_compiled_operators_is_reported_truly():
    from mmcv.utils.env import collect_env
    from mmcv.utils.ext_loader import check_ops_exist, load_ext
    from mmengine.utils.dl_utils import mmcv_full_available

    assert mmcv_full_available() is check_ops_exist() is (not LITE)
    assert (collect_env()["MMCV Compiler"] == "n/a") is LITE
    assert (load_ext.__module__ == "mmcv.utils.ext_loader") is (not LITE)


def test_operators_written_in_pytorch_work():
    from mmcv.ops import CrissCrossAttention, MultiScaleDeformableAttention, point_sample

    x, points = torch.randn(2, 8, 5, 7), torch.rand(2, 11, 2)
    expected = F.grid_sample(x, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]
    torch.testing.assert_close(point_sample(x, points), expected)

    attention = CrissCrossAttention(8)
    torch.testing.assert_close(attention(x), x)  # its learned scale starts at zero
    attention.gamma.scale.data.fill_(1)
    assert (attention(x) - x).abs().max() > 1e-3

    module = MultiScaleDeformableAttention(embed_dims=8, num_heads=2, num_levels=1, num_points=1, dropout=0.0)
    shapes, start = torch.tensor([[5, 7]]), torch.tensor([0])
    value = torch.randn(35, 1, 8)
    out = module(
        value, value=value, reference_points=torch.rand(1, 35, 1, 2), spatial_shapes=shapes, level_start_index=start
    )
    assert out.shape == value.shape and torch.isfinite(out).all()


@pytest.mark.skipif(not LITE, reason="mmcv has its compiled operators")
@pytest.mark.parametrize(
    ("call", "operator", "hint"),
    [
        (lambda ops: ops.DeformConv2dPack(4, 4, 3, padding=1)(torch.randn(1, 4, 8, 8)), "deform_conv_forward", ""),
        (lambda ops: ops.CARAFEPack(4, 2)(torch.randn(1, 4, 8, 8)), "carafe_forward", ""),
        (
            lambda ops: ops.sigmoid_focal_loss(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), 2.0, 0.25, None, "none"),
            "sigmoid_focal_loss_forward",
            "py_sigmoid_focal_loss",
        ),
    ],
)
def test_compiled_operators_say_what_is_missing_when_called(call, operator, hint):
    import mmcv.ops

    with pytest.raises(compat.MissingOperatorError, match=rf"{operator} is a compiled operator.*mmcv-lite") as error:
        call(mmcv.ops)
    assert hint in str(error.value) and "pip install --no-build-isolation mmcv==2.1.0" in str(error.value)
    assert isinstance(error.value, ModuleNotFoundError)  # what guards in mmseg and mmcv catch
    assert error.value.name == "mmcv._ext"


@pytest.mark.skipif(not LITE, reason="mmcv has its compiled operators")
@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_psa_mask_is_ours(kind):
    import mmcv.ops

    x = torch.randn(2, 15, 3, 4, dtype=torch.float64, requires_grad=True)
    module = mmcv.ops.PSAMask(kind, (5, 3))
    assert torch.equal(module(x), psa_mask(x, kind, (5, 3)))
    assert torch.autograd.gradcheck(module, (x,))


# mmseg:: in configs


def test_packages_resolve_by_module_everywhere(tmp_path):
    from mmengine.config import config
    from mmengine.hub import hub
    from mmengine.utils import get_installed_path, is_installed, package_utils

    folder = os.path.dirname(mmseg.__file__)
    for path in (get_installed_path, config.get_installed_path, hub.get_installed_path):
        assert os.path.samefile(path("mmsegmentation"), folder)
        assert os.path.samefile(path("mmseg"), folder)
    assert is_installed("mmseg") and config.is_installed("mmsegmentation")
    assert not is_installed("no_such_package") and not config.is_installed("no_such_package")
    with pytest.raises(
        Exception, match="no_such_package"
    ):  # of a type that only pkg_resources has, where mmengine uses it
        get_installed_path("no_such_package")
    distribution = metadata.packages_distributions()["mmseg"][0]
    assert package_utils.package2module(distribution) == "mmseg"
    assert os.path.samefile(get_installed_path(distribution), folder)

    (tmp_path / "child.py").write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'\nmodel = dict(pretrained=None)\n")
    assert Config.fromfile(tmp_path / "child.py").model.decode_head.type == "FCNHead"


def test_namespace_packages_are_refused_as_mmengine_does(tmp_path, monkeypatch):
    (tmp_path / "a_namespace").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not compat._is_installed("a_namespace")
    with pytest.raises(RuntimeError, match="a_namespace is a namespace package"):
        compat._get_installed_path("a_namespace")


def test_mmseg_from_a_distribution_of_another_name_resolves(tmp_path):
    """Resolve it as with onedl-mmsegmentation: the module is mmseg, and no distribution is called mmsegmentation."""
    site = tmp_path / "site"
    site.mkdir()
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            if "mmsegmentation" not in entry.name:
                (site / entry.name).symlink_to(entry)
    information = site / "onedl_mmsegmentation-1.4.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: onedl-mmsegmentation\nVersion: 1.4.2\n")
    (information / "top_level.txt").write_text("mmseg\n")
    child = tmp_path / "child.py"
    child.write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'")
    code = f"""
import sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(site)!r}]
from importlib import metadata
from mmengine.config import config
from mmengine.utils import package_utils

def by_distribution(package):  # what onedl-mmengine 0.10.12 comes down to
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False

package_utils.is_installed = config.is_installed = by_distribution
assert not config.is_installed("mmsegmentation")

import mmseg_resample
print(config.Config.fromfile({str(child)!r}).model.decode_head.type)
print(config.get_installed_path("mmsegmentation") == config.get_installed_path("onedl-mmsegmentation"))
"""
    assert python(code, "-S", "-E").split()[-2:] == ["FCNHead", "True"]


# What must be there


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("sys.modules['mmcv'] = None", r"no mmcv"),
        ("sys.modules['mmseg'] = None", r"no mmseg"),
        pytest.param(
            "import mmcv; mmcv.__version__ = '2.2.0'",
            "MMCV==2.2.0 is used but incompatible",
            marks=pytest.mark.skipif(not OFFICIAL, reason="forks accept every mmcv"),
        ),
    ],
)
def test_missing_or_contradicting_packages_are_one_clear_error(before, found):
    out = python(
        f"import sys; {before}\ntry:\n    import mmseg_resample\n    mmseg_resample.register()\n"
        f"except ImportError as error:\n    print(error)"
    )
    assert found in out
    assert 'pip install "mmseg_resample[lite]"' in out and "mmcv>=2.0.0rc4,<2.2.0" in out


def test_a_torchvision_for_another_torch_is_one_clear_error(tmp_path):
    """Raises what it does beside torch 2.13; timm imports it, and mmseg timm."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "timm.py").write_text("import torchvision")
    out = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import mmseg_resample\nexcept ImportError as error:\n    print(error)"
    )
    problem, found, rule, fix = out.splitlines()
    assert problem.endswith("mmseg.models cannot be imported: operator torchvision::nms does not exist")
    assert (
        f"torch from torch {metadata.version('torch')}, torchvision from a bare folder, timm from a bare folder"
        in found
    )
    assert "torchvision is built for one torch" in rule and "pip uninstall torchvision timm" in fix
