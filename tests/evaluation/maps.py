"""Predictions and labels to evaluate, and a way to do it."""

import torch

CLASSES = ("road", "car", "sky", "tree", "person")
C = len(CLASSES)


def images(number, size=(9, 13), ignore_index=255, present=C):
    """Predictions and labels with errors, ignored pixels and, for ``present`` < C, classes that never occur."""
    generator = torch.Generator().manual_seed(number)
    for _ in range(number):
        label = torch.randint(present, size, generator=generator)
        pred = torch.where(torch.rand(size, generator=generator) < 0.7, label, (label + 1) % present)
        yield pred, torch.where(torch.rand(size, generator=generator) < 0.1, ignore_index, label)


def evaluate(metric, pairs):
    metric.dataset_meta = {"classes": CLASSES}
    samples = [
        {"img_path": f"somewhere/{i}.png", "pred_sem_seg": {"data": p[None]}, "gt_sem_seg": {"data": t[None]}}
        for i, (p, t) in enumerate(pairs)
    ]
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def patches(seed, size=(17, 22), num_classes=4, ignore_index=255):
    """A label of rectangles, some ignored, and a prediction that is shifted, noisy, and arbitrary where ignored."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high):
        return int(torch.randint(high, (), generator=generator))

    label = torch.full(size, draw(num_classes))
    for _ in range(6):
        y, x = draw(size[0]), draw(size[1])
        label[y : y + 2 + draw(7), x : x + 2 + draw(7)] = draw(num_classes + 1)
    ignored = (label == num_classes) | (torch.rand(size, generator=generator) < 0.02)
    pred = label.roll((draw(3) - 1, draw(3) - 1), (0, 1))
    noise = (torch.rand(size, generator=generator) < 0.05) | (pred == num_classes)
    pred = torch.where(noise, torch.randint(num_classes, size, generator=generator), pred)
    return torch.where(ignored, 99, pred), torch.where(ignored, ignore_index, label)
