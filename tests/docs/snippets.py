"""The code blocks of the documents, and what they are checked by.

A fenced ``python`` block is run, or read as a config:

- One that imports something is a program. The programs of a document share one namespace, from top to bottom.
- Any other is a config. mmengine reads it with its bases; every ``type`` in it has to be registered and to take the
  arguments that it is given; a ``resize_policy`` has to build; one with ``axes`` is loaded as a study.
- One that begins with a comment of a file's name, ``# cells.py``, is written to that file, for those after it, and a
  program is imported from there. A base named ``my_*.py`` that no block has written is a stock UPerNet.
- ``python notest because ...`` is not run. It says why.

In a fenced ``bash`` block, and in code in the text, what follows ``mmseg-resample``, ``-m mmseg_resample`` or
``tools/*.py`` is parsed by that command; a config of a package or of ``configs/`` has to be there, and so have the
other scripts that are named.
"""

import importlib
import inspect
import re
import runpy
import shlex
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine.registry
import mmseg.registry
from mmengine.config import Config
from mmengine.registry import Registry

from mmseg_resample import cli
from mmseg_resample.launch import UsageError
from mmseg_resample.launch.configs import find_config
from mmseg_resample.policy import ResizePolicy
from mmseg_resample.study import loading

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
STOCK = "mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py"
WRAPPED = {
    "norm_cfg",
    "act_cfg",
    "conv_cfg",
    "upsample_cfg",
    "init_cfg",
}  # mmcv's own builders read more than a class does
OPTIONAL = {"segmentation_models_pytorch", "timm", "torchvision"}  # blocks that need one of these may be skipped
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)(?P<words>[^\n`]*)\n(?P<code>.*?)^ *```$", re.M | re.S)
REGISTRIES = [
    registry
    for module in (mmseg.registry, mmengine.registry)
    for registry in vars(module).values()
    if isinstance(registry, Registry)
]


class WrongSnippet(Exception):
    """Statement of what is wrong in a block."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Args:
        document: the file it stands in.
        line: of its first line of code.
        language: behind the fence.
        words: behind the language.
        code: without its indentation.
    """

    document: Path
    line: int
    language: str
    words: str
    code: str

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"

    @property
    def name(self) -> str | None:
        """The file that the block begins with the name of."""
        named = re.match(r"# ([\w/]+\.py)\b", self.code)
        return named and named[1]

    @property
    def is_program(self) -> bool:
        return bool(re.search(r"^(import|from) \w", self.code, re.M))

    def missing(self) -> list[str]:
        """Name the optional packages that it imports and that are not installed."""
        imported = re.findall(r"^(?:import|from) (\w+)", self.code, re.M)
        return [name for name in imported if name in OPTIONAL and find_spec(name) is None]


def blocks(document: Path, *languages: str) -> list[Block]:
    text = document.read_text()
    found = [
        Block(document, text.count("\n", 0, m.start("code")) + 1, m["language"], m["words"], textwrap.dedent(m["code"]))
        for m in FENCE.finditer(text)
    ]
    return [block for block in found if block.language in languages]


# Python


def project(folder: Path) -> Path:
    """Make a folder in which the documents' relative names of configs are found, and return it."""
    for configs in (REPOSITORY / "configs").iterdir():
        (folder / configs.name).symlink_to(configs)
    (folder / "project").mkdir()
    return folder / "project"


def check_python(block: Block, names: dict[str, Any], folder: Path) -> None:
    """Check a block, in ``folder``, which is the working directory and on Python's path.

    Raises:
        WrongSnippet: a config does not fit what it configures.
        Exception: whatever the code raises.
    """
    if block.words.strip():
        if not re.match(r" notest because \w.+", block.words):
            raise WrongSnippet(f"{block}: expected nothing or 'notest because ...' behind python, got {block.words!r}.")
        compile(block.code, str(block.document), "exec")
        return
    if block.name:
        (folder / block.name).write_text(block.code)
    if block.is_program and block.name:
        importlib.invalidate_caches()
        importlib.import_module(Path(block.name).stem)
    elif block.is_program:
        lines = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the document
        exec(compile(lines, str(block.document), "exec"), names)
    else:
        _check_config(block, folder / (block.name or f"line_{block.line}.py"))


def _check_config(block: Block, path: Path) -> None:
    path.write_text(block.code)
    for base in re.findall(r"""_?base_? = ['"](my_\w+\.py)""", block.code):
        if not (path.parent / base).exists():
            (path.parent / base).write_text(f"_base_ = {STOCK!r}\n")
    if re.search(r"^axes = ", block.code, re.M):
        loading.load(path)
        return
    for where, node in _dicts(Config.fromfile(path).to_dict()):
        if isinstance(node.get("type"), str):
            _check_arguments(f"{block}: {where}", node)
        if isinstance(node.get("resize_policy"), dict):
            ResizePolicy(**node["resize_policy"])


def _dicts(node: Any, where: str = "config") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield where, node
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list, tuple)) and key not in WRAPPED:
            yield from _dicts(value, f"{where}.{key}")


def _check_arguments(where: str, node: dict[str, Any]) -> None:
    scope, _, name = node["type"].rpartition(".")
    if scope and find_spec(scope.partition(".")[0]) is None:
        return
    found = next((each for registry in REGISTRIES if (each := registry.get(node["type"])) is not None), None)
    if found is None:
        raise WrongSnippet(f"{where}: no registry has the type {name}.")
    known = _arguments(found)
    unknown = [key for key in node if key not in known and not key.startswith("_")]
    if "*" not in known and unknown:
        raise WrongSnippet(f"{where}: {name} takes no {', '.join(unknown)}.")


@cache
def _arguments(function: Callable[..., Any]) -> set[str]:
    """Name the arguments that a config may give, with ``*`` where they cannot be known."""
    # `type` and `init_cfg` are read by the registry and by mmengine's modules; a segmentor's `pretrained` is older.
    known = {"type", "init_cfg"}
    takers = [c.__init__ for c in inspect.getmro(function)] if isinstance(function, type) else [function]
    for taker in takers:
        parameters = inspect.signature(taker).parameters.values()
        known |= {p.name for p in parameters if p.kind != p.VAR_KEYWORD}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return known
    return known | {"*"}


# Shell


def command_lines(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the words of every command in a document's shell blocks, and of ours in its text."""
    for block in blocks(document, "bash"):
        lines = block.code.replace("\\\n", " ").splitlines()
        for line in lines:
            yield from ((str(block), words) for words in _commands(line))
    text = FENCE.sub("", document.read_text())
    for code in re.findall(r"(?<!`)`(mmseg-resample \w+ [^`]+)`", text):
        yield from ((document.name, words) for words in _commands(code))


def _commands(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in ("&&", "||", "|", ";"):
            words.append(word)
            continue
        if words:
            yield words
        words = []


def check_command(where: str, words: list[str]) -> bool:
    """Parse a command as it would be when it runs, and return whether it is one of ours.

    Raises:
        WrongSnippet: it would be refused, or a config or a script that it names is not there.
    """
    arguments = _arguments_of_ours(where, words)
    if arguments is None:
        return False
    parse, argv = arguments
    try:
        args = parse(argv)
    except SystemExit as end:
        if end.code:
            raise WrongSnippet(f"{where}: {shlex.join(words)} is refused; stderr says why.") from end
        return True  # --help, --version
    config = str(getattr(args, "config", ""))
    if ("::" in config or config.startswith("configs/")) and "<" not in config:
        try:
            find_config(str(REPOSITORY / config) if config.startswith("configs/") else config)
        except UsageError as error:
            raise WrongSnippet(f"{where}: {error}") from error
    return True


def _arguments_of_ours(where: str, words: list[str]) -> tuple[Callable[[list[str]], Any], list[str]] | None:
    if "mmseg-resample" in words:
        return cli.parse, words[words.index("mmseg-resample") + 1 :]
    if "-m" in words and words[words.index("-m") + 1] == "mmseg_resample":
        return cli.parse, words[words.index("-m") + 2 :]
    script = next((word for word in words if re.fullmatch(r"(tools|docs|benchmarks)/\w+\.py", word)), None)
    if script is None:
        return None
    path, argv = REPOSITORY / script, words[words.index(script) + 1 :]
    if not path.is_file():
        raise WrongSnippet(f"{where}: there is no {script}.")
    if path.parent.name != "tools":
        return None
    command = "convert" if path.stem == "convert_sfnet_checkpoint" else path.stem
    if command in cli.COMMANDS:
        return cli.parse, [command, *argv]
    return runpy.run_path(str(path))["parse"], argv
