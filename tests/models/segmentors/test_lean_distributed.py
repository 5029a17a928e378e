"""``LeanSegmentor`` in two processes: mmengine's data parallel wrapper, gloo."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

import mmseg_resample  # noqa: F401  (in the processes that are spawned, nothing else imports it)

from .thin import AUXILIARY, HEADS, SIZE, batch, pair


def train_and_validate(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    logs, weights, labels = [], [], []
    preprocessor = dict(type="SegDataPreProcessor", size=SIZE)
    head = dict(HEADS["SegformerHead"], dropout_ratio=0.0)
    for model in pair(head, auxiliary_head=dict(AUXILIARY, dropout_ratio=0.0), data_preprocessor=preprocessor):
        wrapper = MMDistributedDataParallel(model)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for step in range(2):
            images, samples = batch(seed=2 * step + rank)
            logs.append(wrapper.train_step(dict(inputs=list(images), data_samples=samples), optimizer))
        weights.append(torch.cat([p.flatten() for p in model.parameters()]).detach())
        images, samples = batch(ori_shape=(101, 140), seed=rank)
        predicted = wrapper.eval().val_step(dict(inputs=list(images), data_samples=samples))
        labels.append(torch.cat([sample.pred_sem_seg.data for sample in predicted]))
    torch.save((logs, weights, labels), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_and_validate_as_stock(tmp_path):
    mp.spawn(train_and_validate, args=(str(tmp_path),), nprocs=2)
    (logs, weights, labels), (_, other_weights, other_labels) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for stock, lean in zip(logs[:2], logs[2:], strict=True):
        for name, value in stock.items():
            torch.testing.assert_close(lean[name], value, atol=0.05 if "acc" in name else 1e-5, rtol=0)
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=0)
    assert torch.equal(weights[1], other_weights[1])  # trained on the other half of the images
    assert ((labels[0] != labels[1]).sum() + (other_labels[0] != other_labels[1]).sum()) <= 2  # of 56560
    assert not torch.equal(labels[0], other_labels[0])
