"""The console command, what importing the package does, and a wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import mmseg_resample
from mmseg_resample import __version__, cli

REPOSITORY = Path(__file__).parents[1]
AUDITED = "mmseg_resample::shapes/fpn_r18-tiny_1xb8-400_shapes-128x128.py"


def python(*arguments: object, folder: Path | None = None, path: object = REPOSITORY) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def console(code: str) -> list[str]:
    """Return the arguments of a Python that runs ``code`` as the console script, whose folder is first on its path."""
    return ["-c", f"import sys; sys.path[0] = '/bin'; sys.argv[0] = '/bin/mmseg-resample'; {code}"]


# The command line


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_help_teaches_and_does_without_torch(command):
    code = (
        f"from mmseg_resample import cli\ntry: cli.main({[*command, '--help']})\nexcept SystemExit: print(*sys.modules)"
    )
    done = python(*console(code))
    *text, modules = done.stdout.splitlines()
    if not command:
        assert all(any(line.startswith(f"  {name} ") for line in text) for name in cli.COMMANDS)
    else:
        module, _ = cli.COMMANDS[command[0]]
        assert f"mmseg_resample.{module}" in modules.split()
        examples = "\n".join(text).partition("examples:")[2]
        assert f"mmseg-resample {command[0]} " in examples and "exit status:" in examples
    assert not {"torch", "numpy", "mmengine", "matplotlib"} & set(modules.split())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--version"], 0, f"mmseg_resample {__version__}\n"),
        (["trian"], 2, "there is no command 'trian'. Did you mean 'train'?"),
        (["frobnicate"], 2, "there is no command 'frobnicate'.\n"),
        ([], 2, "the following arguments are required: COMMAND"),
        (["audit"], 2, "mmseg-resample audit: error: the following arguments are required: config"),
    ],
)
def test_what_names_no_command(capsys, arguments, status, said):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == status and said in captured.out + captured.err


# Importing the package


SHOW = "print('torch' in sys.modules and 'SFNetHead' in __import__('mmseg.registry').registry.MODELS)"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (["-c", f"import sys, mmseg_resample; {SHOW}"], ["True"]),
        (console(f"import mmseg_resample; {SHOW}; mmseg_resample.register(); {SHOW}"), ["False", "True"]),
    ],
)
def test_everybody_but_our_commands_registers_on_import(start, said):
    done = python(*start)
    assert done.stdout.split() == said, done.stderr


@pytest.mark.skipif(torch.__version__ < "2.6", reason="`resize` is under torch.compiler.disable there")
def test_importing_the_package_imports_no_compiler():
    """It takes as long as half of torch."""
    done = python("-c", "import sys, mmseg_resample\nprint('torch._dynamo' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_functions_are_opaque_and_constant_to_compilers_as_pytorch_makes_them():
    from mmseg_resample.ops import _check

    def function() -> None: ...

    def constant() -> None: ...

    assert vars(_check.constant(function)) == vars(torch.compiler.assume_constant_result(constant)) != {}
    seen = _check.opaque(lambda: _check.is_compiling())
    assert torch.compile(lambda: seen(), backend="eager")() is False


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/venv/bin/mmseg-resample audit x.py", True),
        ("C:/venv/Scripts/mmseg-resample.exe audit x.py", True),
        ("python -X dev -m mmseg_resample audit x.py", True),
        ("python -u tools/train.py x.py", True),
        ("python tools/train.py x.py", True),
        ("python -m mmseg_resample.study.worker", False),
        ("python tools/prepare_camvid.py x", False),
        ("python -m pytest -m mmseg_resample", False),
        ("python elsewhere/train.py x.py", False),
        ("python", False),
    ],
)
def test_which_processes_are_our_commands(monkeypatch, command, ours):
    words = command.replace("tools/", f"{REPOSITORY}/tools/").split()
    program = next((word for word in words if not word.endswith("python") and word not in ("-X", "-u", "dev")), "")
    monkeypatch.setattr(sys, "argv", [program, *words[-1:]])
    monkeypatch.setattr(sys, "orig_argv", words)
    assert mmseg_resample._is_our_command() is ours


def test_without_mmseg_the_package_imports_and_registering_says_what_is_missing():
    done = python(
        "-c",
        "import sys\nsys.modules['mmseg'] = None\nimport mmseg_resample\nprint('torch' in sys.modules)\n"
        "try:\n    mmseg_resample.register()\nexcept ImportError as error:\n    print(error)",
    )
    assert done.stdout.startswith("False\n") and 'Fix: pip install "mmseg_resample[lite]"' in done.stdout, done.stderr


# A project of a user


CELLS = """
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN


@MODELS.register_module()
class CellNeck(ResampleFPN):
    pass
"""
CHILD = f"""
_base_ = {AUDITED!r}
custom_imports = dict(imports=['mmseg_resample', 'cells'])
model = dict(neck=dict(type='CellNeck'))
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cells.py").write_text(CELLS)
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path


def test_modules_in_the_working_directory_are_found(project):
    audit = "sys.exit(main(['audit', 'child.py', '--size', '64', '--compare', 'none']))"
    done = python(*console(f"from mmseg_resample.cli import main; {audit}"), folder=project)
    assert done.returncode == 0 and "reads 1.5 px up and left" in done.stdout, done.stderr


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """An unpacked wheel of a copy of the checkout."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("builds without isolation, by setuptools of 77 and later alone")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("configs", "mmseg_resample", "tools", "pyproject.toml", "README.md", "LICENSE"):
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, folder / "source" / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", folder]
    done = python("-m", "pip", "wheel", *options, folder / "source", folder=folder)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as content:
        content.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_configs_tools_and_the_command(wheel):
    package = wheel / "mmseg_resample"
    for kind in ("configs", "tools"):
        packed = {path.relative_to(package / ".mim" / kind) for path in (package / ".mim" / kind).rglob("*.py")}
        assert packed == {path.relative_to(REPOSITORY / kind) for path in (REPOSITORY / kind).rglob("*.py")} != set()
    assert (package / "py.typed").is_file()
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "mmseg-resample = mmseg_resample.cli:main" in entry_points.read_text()


@pytest.mark.slow
def test_names_of_its_configs_resolve_from_a_wheel(wheel, project):
    """In ``_base_`` and by mmengine's own ``get_config``, and in the tools that mim starts."""
    code = (
        "import mmseg_resample, mmengine.hub, mmengine.config\n"
        "print(mmseg_resample.__file__)\n"
        f"print(mmengine.hub.get_config({AUDITED!r}).model.neck.type)\n"
        "cfg = mmengine.config.Config.fromfile('child.py')\n"
        "from mmengine.runner import Runner; import mmseg.registry\n"
        "cfg.work_dir = 'work'; cfg.launcher = 'none'\n"
        "print(type(Runner.from_cfg(cfg).model.neck).__name__)\n"
    )
    done = python("-c", code, folder=project, path=wheel)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    file, neck, built = lines[0], lines[1], lines[-1]
    assert file.startswith(str(wheel)) and neck == "ResampleFPN" and built == "CellNeck"
    tool = wheel / "mmseg_resample" / ".mim" / "tools" / "audit.py"
    done = python(tool, "child.py", "--size", 64, "--compare", "none", folder=project, path=wheel)
    assert done.returncode == 0 and "reads 1.5 px up and left" in done.stdout, done.stderr
