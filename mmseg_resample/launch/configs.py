"""From the name of a config to a config that can be used, and what is checked before anything is built."""

import argparse
import copy
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import mmengine.registry
import mmseg.registry
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.utils import get_installed_path, is_installed
from mmseg.registry import DATASETS

from ..compat import own_files
from ..ops import Coordinates
from ..policy import PADDING_MODES, is_active
from ..suggest import did_you_mean, did_you_mean_file, did_you_mean_key
from .messages import UsageError, say

ACCELERATORS = ("cuda", "musa", "npu", "mlu")  # that mmengine trains on in mixed precision, or on several
_GIVES = {"IoUMetric": "aAcc", "ConfusionMatrixMetric": "aAcc", "DisplacementMetric": "dx"}  # whatever their options
_RUNNER_ARGUMENTS = set(inspect.signature(Runner).parameters)  # may be set although a config does not mention them


def config_from_arguments(args: argparse.Namespace) -> Config:
    """Read the config that ``add_arguments`` asked for; see ``load_config``."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, options=args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
    if args.policy is not None:
        set_policy(cfg, args.policy)
    return cfg


def load_config(
    config: str,
    *,
    options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
) -> Config:
    """Read a config and complete it from the command line.

    Args:
        config: a path, or ``package::path`` for a config of an installed OpenMMLab package.
        options: dotted key to value, merged into the config. A key that the config does not have is added, with a
            warning on stderr that names the nearest one.
        work_dir: where the run writes; default: the config's ``work_dir``, else ``./work_dirs/<config name>``.
        launcher: as in ``Runner``.

    Raises:
        UsageError: no such config, it cannot be read, an option does not fit it, or the launcher has no GPU to use.
    """
    path = find_config(config)
    try:
        cfg = Config.fromfile(path)
    except (ImportError, OSError, SyntaxError) as error:
        raise UsageError(f"config {path} cannot be read: {_reason(error)}") from error
    if options:
        _merge(cfg, options)
    if launcher not in ("none", "pytorch") and get_device() not in ACCELERATORS:
        raise UsageError(
            f"--launcher {launcher}: mmengine gives every process a GPU, and torch finds none. On the CPU use torchrun "
            f"and --launcher pytorch."
        )
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise UsageError("--launcher pytorch: the command must be started by torchrun, which sets RANK. Drop it.")
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or os.path.join("work_dirs", path.stem)
    return cfg


def _reason(error: BaseException) -> str:
    """Return the message; for an import that mmengine tried, what it did not find instead of where it looked."""
    message, _, _ = str(error).partition(", the current sys.path is")
    cause: BaseException | None = error
    while isinstance(cause, ImportError):
        innermost, cause = cause, cause.__cause__ or cause.__context__
    return message if not isinstance(error, ImportError) or innermost is error else f"{message}: {innermost}"


def find_config(config: str) -> Path:
    """Return the file of a config given as a path or as ``package::path`` (``.py`` may be left out).

    Raises:
        UsageError: there is no such file; the message suggests names that are there.
    """
    package, separator, name = config.rpartition("::")
    if not separator:
        path, hint = Path(config), ""
    else:
        folder = _config_folder(package, config)
        path = folder / name
        path = path if path.suffix else path.with_suffix(".py")
        hint = "" if path.is_file() else _elsewhere(config, package, folder, path)
    if path.is_file():
        return path
    raise UsageError(f"config {config}: there is no file {path}.{hint or did_you_mean_file(path)}")


def _config_folder(package: str, config: str) -> Path:
    if package == "mmseg_resample":
        return own_files("configs")
    if not is_installed(package):
        hint = did_you_mean(package, [name for name in MODULE2PACKAGE if find_spec(name) is not None])
        raise UsageError(f"config {config}: the package {package!r} is not installed.{hint}")
    return Path(get_installed_path(package), ".mim", "configs")


def _elsewhere(config: str, package: str, folder: Path, path: Path) -> str:
    """Say where a config of a package lies that is named without its folder, or spelt almost so; "" if nowhere."""
    names = {file.name: f"{package}::{file.relative_to(folder).as_posix()}" for file in folder.rglob("*.py")}
    if path.name in names:
        return f" It is {names[path.name]}."
    return did_you_mean(config, names.values(), cutoff=0.9)


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    keys = list(dotted_keys(cfg.to_dict()))
    for option in options:
        if option not in keys and option.split(".")[0] not in _RUNNER_ARGUMENTS - set(keys):
            hint = did_you_mean_key(option, keys)
            say(f"warning: --cfg-options: the config has no {option}, so it is added.{hint}")
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError) as error:
        raise UsageError(f"--cfg-options {' '.join(options)}: {error.args[0]}") from error


def dotted_keys(node: Any) -> Iterator[str]:
    """Yield the dotted keys of nested dicts and lists, as ``--cfg-options`` and the axes of a study write them."""
    return (key for key, _ in dotted_items(node))


def dotted_items(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key of nested dicts and lists with its value; ``prefix`` goes before the keys."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from dotted_items(value, f"{prefix}{key}.")


def with_indices(node: Any, key: str) -> str:
    """Replace the types of list entries in a dotted key by their indices: ``pipeline.RandomCrop.crop_size``.

    A type that several entries have, or none, stays as it is, and is no key of the config.
    """
    parts = []
    for part in key.split("."):
        if isinstance(node, list | tuple):
            if not part.isdecimal():
                found = [i for i, entry in enumerate(node) if isinstance(entry, Mapping) and entry.get("type") == part]
                part = str(found[0]) if len(found) == 1 else part
            index = int(part) if part.isdecimal() else len(node)
            node = node[index] if index < len(node) else None
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
        parts.append(part)
    return ".".join(parts)


def set_policy(cfg: Config, pixel_model: str | Mapping[str, Any]) -> None:
    """Put every resize of ``cfg.model`` under one pixel model, through ``ResampledSegmentor``.

    ``LeanSegmentor`` stays outermost: the policy goes to the segmentor that it wraps.

    Args:
        cfg: from ``load_config``; its ``model`` is changed in place.
        pixel_model: ``exact``; ``exact+pad``, which pads the image by its outermost pixels until features reach its
            border, or ``exact+reflect`` and ``exact+constant``, by others; ``pad``, which pads by whole strides and
            leaves every flag; ``True``, ``False``, or a convention that ``ops.resize`` knows; or the arguments of a
            ``ResizePolicy``.

    Raises:
        UsageError: another word, or the config has a policy already.
    """
    given = policy_of(cfg.model)
    if given:
        raise UsageError(f"--policy {pixel_model}: the config has resize_policy={given}. Keep one of them.")
    conventions = get_args(Coordinates)
    policies: dict[str, dict[str, Any]] = {
        "exact": dict(exact=True),
        "exact+pad": dict(exact=True, pad="replicate"),
        **{f"exact+{mode}": dict(exact=True, pad=mode) for mode in PADDING_MODES},
        "pad": dict(pad="replicate"),
        **{str(flag): dict(rules=[dict(align_corners=flag)]) for flag in (True, False)},
        **{name: dict(rules=[dict(coordinates=name)]) for name in conventions},
    }
    if not isinstance(pixel_model, str):
        policy = dict(pixel_model)
    elif pixel_model in policies:
        policy = policies[pixel_model]
    else:
        known, hint = ", ".join(conventions), did_you_mean(pixel_model, policies)
        raise UsageError(f"--policy {pixel_model}: expected exact, exact+pad, True, False or one of {known}.{hint}")
    if cfg.model.type == "LeanSegmentor":
        cfg.model.pop("resize_policy", None)
        cfg.model.segmentor = _under_policy(_wrapped(cfg.model), policy)
    else:
        cfg.model.update(_under_policy(cfg.model, policy))


def policy_of(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the arguments of the policy that a model's config is under, or the segmentor that it wraps; else None."""
    policies = (each.get("resize_policy") or {} for each in (model, _wrapped(model)))
    return next(filter(is_active, policies), None)


def without_policy(cfg: Config) -> Config:
    """Copy ``cfg`` without the policy that its model, or the segmentor that it wraps, is under."""
    cfg = copy.deepcopy(cfg)
    for each in (cfg.model, _wrapped(cfg.model)):
        if each.get("resize_policy"):
            each["resize_policy"] = dict(exact=False)  # type: ignore[index]
    return cfg


def _wrapped(model: Mapping[str, Any]) -> Mapping[str, Any]:
    segmentor = model.get("segmentor")
    return segmentor if isinstance(segmentor, Mapping) else dict(type=segmentor or "EncoderDecoder")


def _under_policy(model: Mapping[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    stock = {} if model["type"] == "ResampledSegmentor" else dict(segmentor=model["type"])
    return {**model, **stock, "type": "ResampledSegmentor", "resize_policy": policy}


def require(cfg: Config, purpose: str, *keys: str) -> None:
    """Refuse a config that lacks a dotted key.

    Raises:
        UsageError: names the missing keys and the ``purpose`` that needs them.
    """
    known = set(dotted_keys(cfg.to_dict()))
    missing = [key for key in keys if key not in known]
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)} in the config, which does not have it.")


def check_metrics(cfg: Config, key: str) -> None:
    """Refuse metrics that are known to give equal names, which mmengine refuses when all images are done."""
    seen: dict[Any, str] = {}
    for evaluator in cfg.get(key) if isinstance(cfg.get(key), list | tuple) else [cfg.get(key) or {}]:
        kind = type_name(evaluator)
        name, prefix = _GIVES.get(kind), evaluator.get("prefix")
        if name is not None and (name, prefix) in seen:
            raise UsageError(
                f"{key}: {seen[name, prefix]} and {kind} both give {name}, and mmengine takes each name once. Give one "
                f"of them a prefix, such as dict(type={kind!r}, prefix='second')."
            )
        seen[name, prefix] = kind


def require_data(cfg: Config, *loaders: str) -> None:
    """Refuse a config whose images are not where it says. Only local files are looked for.

    Args:
        cfg: from ``load_config``.
        loaders: the keys of its data loaders; those that it does not set are skipped.

    Raises:
        UsageError: names a folder that is missing, and every ``data_root`` to set.
    """
    missing: dict[str, Path] = {}
    how_to_get = ""
    for loader in loaders:
        for key, dataset in [(loader, cfg.get(loader)), *dotted_items(cfg.get(loader), f"{loader}.")]:
            folder = _image_folder(dataset)
            if folder is not None and not folder.exists():
                missing[key] = folder
                how_to_get = getattr(DATASETS.get(str(dataset["type"])), "HOW_TO_GET", how_to_get)
    if missing:
        key, folder = next(iter(missing.items()))
        settings = " ".join(f"{key}.data_root=<folder>" for key in missing)
        raise UsageError(
            f"{key}: there is no {folder}. Put the data there, or say where it is: --cfg-options {settings}."
            + (f"\n{how_to_get}" if how_to_get else "")
        )


def _image_folder(dataset: Any) -> Path | None:
    """Return the folder of the images of a data set's config; None if it reads no local files."""
    if not isinstance(dataset, Mapping) or not isinstance(dataset.get("data_root"), str) or "type" not in dataset:
        return None
    folder = os.path.join(dataset["data_root"], (dataset.get("data_prefix") or {}).get("img_path") or "")
    remote = (dataset.get("backend_args") or {}).get("backend", "local") != "local" or re.match(r"\w{2,}:", folder)
    return None if remote else Path(folder)


def type_name(model: Mapping[str, Any]) -> str:
    """Return the name of the class that a config asks for, without scope and module."""
    kind = model.get("type")
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]  # configs of mmengine's new style have classes


def describe_unknown_type(error: Exception) -> str | None:
    """Say in a sentence which name of a config no registry of mmengine knows; None if that is not the error."""
    match = re.search(r"([^\s'\"]+) is not in the (\w+)::(\S.*?) registry", str(error))
    if match is None:
        return None
    name, scope, kind = match.groups()
    package, dot, _ = name.partition(".")
    if dot and find_spec(package) is None:
        return f"type {name!r}: it needs the package {package}, which is not installed."
    known = {key for registry in _registries(kind) for key in registry.module_dict}
    return (
        f"type {name!r} of the config: {scope} has no such {kind}.{did_you_mean(name, sorted(known))} What is your own "
        f"is registered by a module that custom_imports names."
    )


def _registries(kind: str) -> Iterator[Registry]:
    for module in (mmseg.registry, mmengine.registry):
        for value in vars(module).values():
            if isinstance(value, Registry) and value.name == kind:
                yield value
