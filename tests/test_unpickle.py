"""Checkpoints are read as data: all that mmengine stores, nothing else, and nothing is run."""

import functools
import http.server
import io
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmseg_resample.unpickle import RefusedError, load

from .malicious import CHECKPOINTS, Call, checkpoint_of, stream_of


def stored(content: object, *, numpy: str = "numpy._core") -> io.BytesIO:
    """A checkpoint file as torch writes it, with numpy's functions under the module name ``numpy``."""
    written, renamed = io.BytesIO(), io.BytesIO()
    torch.save(content, written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(renamed, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                own = np.float64().__reduce__()[0].__module__.rpartition(".")[0]
                data = data.replace(f"c{own}.multiarray\n".encode(), f"c{numpy}.multiarray\n".encode())
                assert f"c{numpy}.multiarray\n".encode() in data or b"multiarray" not in data
            target.writestr(entry.filename, data)
    renamed.seek(0)
    return renamed


@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_what_mmengine_stores_is_read_under_the_names_of_numpy_1_and_2(numpy):
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    loss = HistoryBuffer([0.5, 0.25], [1, 2])
    content = {
        "state_dict": {"weight": torch.arange(3.0)},
        "message_hub": {
            "log_scalars": {"train/loss": loss},
            "runtime_info": {"best_score": np.float32(31.4), "eta": np.float64(7), "flag": np.bool_(True)},
        },
        "meta": {
            "dataset_meta": ConfigDict(classes=["a", "b"], weight=np.array([[1, 2]], dtype=np.int16), none=np.zeros(0))
        },
        "param_schedulers": [{"anneal_func": OneCycleParamScheduler._annealing_cos}],
    }
    loaded = load(stored(content, numpy=numpy))

    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
    history = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert [list(values) for values in history.data] == [[0.5, 0.25], [1, 2]]
    assert history.statistics("mean") == loss.statistics("mean") == 0.25
    info = loaded["message_hub"]["runtime_info"]
    assert info == {"best_score": np.float32(31.4), "eta": 7.0, "flag": True} and info["best_score"].dtype == np.float32
    meta = loaded["meta"]["dataset_meta"]
    assert isinstance(meta, ConfigDict) and meta.classes == ["a", "b"] and meta.none.size == 0
    assert meta.weight.dtype == np.int16 and type(meta.weight) is np.ndarray and meta.weight.tolist() == [[1, 2]]
    assert loaded["param_schedulers"][0]["anneal_func"] is OneCycleParamScheduler._annealing_cos


def test_states_of_models_and_optimizers_come_back(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 1, 9, 9)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(1)),
        "others": [b"ab", b"", {1, 2}, torch.device("cpu"), torch.Size([2, 3]), torch.bfloat16, (None, 2**70, -1.5)],
    }
    for new in (True, False):
        torch.save(content, tmp_path / "all.pth", _use_new_zipfile_serialization=new)
        loaded = load(tmp_path / "all.pth", map_location="cpu")
        assert loaded["others"] == content["others"] and loaded["half"].dtype == torch.bfloat16
        assert isinstance(loaded["parameter"], nn.Parameter)
        assert loaded["state_dict"]._metadata == content["state_dict"]._metadata
        model.load_state_dict(loaded["state_dict"])
        optimizer.load_state_dict(loaded["optimizer"])
        for key, value in content["state_dict"].items():
            assert torch.equal(loaded["state_dict"][key], value)


FIELDS = (3, "<", None, ("r",), {"r": (np.dtype("i8"), 1_000_000)}, 8, 8, 0)
"""State of a dtype of 8 bytes with a field a megabyte behind them: reading it reads the memory of the process."""


def array(dtype: object) -> Call:
    """One element of ``dtype``, as pickle stores an array."""
    reconstruct = np.empty(0).__reduce__()[0]
    return Call(reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, bytes(8)))


REFUSED = {
    "os.system": Call(os.system, "true"),
    "eval": Call(eval, "1"),
    "partial": functools.partial(print),
    "getattr __init__": Call(getattr, HistoryBuffer, "__init__"),
    "getattr __setstate__": Call(getattr, HistoryBuffer, "__setstate__"),
    "getattr Tensor": Call(getattr, torch.Tensor, "numpy"),
    "ndarray": Call(np.ndarray, (1,), "O", b"\0" * 8),  # would make a Python object of any address
    "array of objects": np.array([None]),
    "dtype of objects": np.dtype("O"),
    "array of records": np.zeros(1, dtype=[("field", "f4")]),
    "array of another byte order": np.arange(3, dtype=np.dtype("i4").newbyteorder()),
    "dtype of another byte order": Call(np.dtype, np.dtype("f8").newbyteorder().str),
    "dtype with fields": Call(np.dtype, "f8", False, True, state=FIELDS),
    "array with fields": array(Call(np.dtype, "f8", False, True, state=FIELDS)),
    "scalar with fields": Call(np.float64().__reduce__()[0], Call(np.dtype, "f8", False, True, state=FIELDS), bytes(8)),
    "array of subarrays": Call(np.dtype, ("f8", (1000,))),
    "codec": Call(__import__("codecs").encode, "x", "rot13"),
}
FILLED = stream_of(np.arange(3)) + stream_of((1, (9,), np.dtype("i8"), False, bytes(72))) + b"b"
STREAMS = {
    "array filled twice": b"\x80\x02" + FILLED + b".",
    "state of a class": b"\x80\x02" + stream_of(HistoryBuffer) + stream_of({"mean": print.__name__}) + b"b.",
    "methods of a dict": b"\x80\x02" + b"ccollections\nOrderedDict\n)R" + stream_of({"get": "x"}) + b"b.",
    "items of an array": b"\x80\x02" + stream_of(np.arange(3)) + b"K\x00K\x01s.",
    "object by INST": b"\x80\x02(S'true'\nios\nsystem\n.",
    "object by OBJ": b"\x80\x02(cos\nsystem\nU\x04trueo.",
    "global by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "call of a type": b"\x80\x02cbuiltins\ntype\nU\x01x\x85R.",
    "no storage": b"\x80\x02U\x06module\x85Q.",
}


@pytest.mark.parametrize("name", [*REFUSED, *STREAMS])
def test_anything_else_in_a_checkpoint_is_refused(name):
    file = stored(REFUSED[name]) if name in REFUSED else checkpoint_of(STREAMS[name])
    with pytest.raises(RefusedError, match=r"^the checkpoint holds .* Nothing of it was run\.$"):
        load(file)


def test_the_field_would_be_read_from_foreign_memory():
    """NumPy itself takes the dtype that is refused above."""
    dtype = pickle.loads(pickle.dumps(REFUSED["dtype with fields"]))
    assert dtype.fields["r"][1] == 1_000_000 and dtype.itemsize == 8


def test_programs_of_torchscript_and_tar_archives_are_refused(tmp_path):
    import tarfile

    torch.jit.save(torch.jit.script(nn.Identity()), tmp_path / "program.pth")
    tarfile.open(tmp_path / "archive.pth", "w").close()
    for name in ("program.pth", "archive.pth"):
        for file in (tmp_path / name, str(tmp_path / name), io.BytesIO((tmp_path / name).read_bytes())):
            with pytest.raises(RefusedError, match="TorchScript program, or is a tar archive"):
                load(file)


class Custom:
    def __init__(self):
        self.value = 3


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="torch before 2.5 has no such list")
def test_what_somebody_allows_is_read():
    """onedl-mmengine loads while it allows the originals in numpy, which stay replaced."""
    reconstruct = np.empty(0).__reduce__()[0]
    content = {"log": HistoryBuffer([0.5], [1]), "array": np.arange(3), "custom": Custom()}
    with pytest.raises(RefusedError, match=r"test_unpickle\.Custom") as error:
        load(stored(content))
    assert error.value.name == f"{__name__}.Custom"
    with torch.serialization.safe_globals([Custom, HistoryBuffer, reconstruct, np.ndarray, np.dtype]):
        loaded = load(stored(content))
        with pytest.raises(RefusedError):
            load(stored(REFUSED["array with fields"]))
    assert loaded["log"].mean() == 0.5 and loaded["array"].tolist() == [0, 1, 2] and loaded["custom"].value == 3


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="torch before 2.5 has no such list")
def test_a_decision_to_trust_getattr_stays():
    with torch.serialization.safe_globals([getattr]):
        assert load(stored(Call(getattr, torch.Tensor, "numpy"))) is torch.Tensor.numpy


def test_weights_alone_where_the_environment_forces_it(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    meta = {"config": "import os"}
    assert load(stored({"weight": torch.ones(1), "meta": meta})) == {"weight": torch.ones(1), "meta": {}}
    for content in (HistoryBuffer([0.5], [1]), REFUSED["os.system"]):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            load(stored(content))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_mmengine_loads_from_an_address_without_running_it(name, tmp_path, monkeypatch):
    """torch.hub would run it, whatever the version of torch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    marker, folder = tmp_path / "marker", tmp_path / "served"
    folder.mkdir()
    content = {"state_dict": {"weight": torch.ones(1)}, "meta": {"iter": 1, "epoch": 0}}
    CHECKPOINTS[name](folder / "e.pth", marker, content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/e.pth"
        try:
            if "config" in name and "hides" not in name:
                loaded = CheckpointLoader.load_checkpoint(address, map_location="cpu", logger="silent")
                assert loaded["state_dict"]["weight"] == 1 and "config" not in loaded["meta"]
            else:
                with pytest.raises(RefusedError):
                    CheckpointLoader.load_checkpoint(address, map_location="cpu", logger="silent")
        finally:
            server.shutdown()
    assert (tmp_path / "cache" / "checkpoints" / "e.pth").is_file() and not marker.exists()
