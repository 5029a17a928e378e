# Shapes draws its scenes itself. Training repeats 1024 of them and keeps them in memory (64 MiB at 128x128), which is
# faster on one core than drawing new ones and as good for the mIoU; workers would each keep their own.
# Another size is set in the `dataset` of all three dataloaders; the scenes stay the same, with more or less around them.
dataset_type = 'ShapesDataset'
size = (128, 128)
train_pipeline = [
    dict(type='LoadShapes', cache=True),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadShapes'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type=dataset_type, length=1024, size=size, seed=0, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, length=100, size=size, seed=1, test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, length=200, size=size, seed=2, test_mode=True, pipeline=test_pipeline))

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
