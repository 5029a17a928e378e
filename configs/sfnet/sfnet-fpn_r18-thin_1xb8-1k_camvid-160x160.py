# The same at a size for CPUs: a ResNet-18 of half the width from scratch, small crops, 1000 iterations.
_base_ = './sfnet-fpn_r18-resampled_1xb8-10k_camvid-352x352.py'
crop_size = (160, 160)
max_iters = 1000
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(stem_channels=32, base_channels=32),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64),
    test_cfg=dict(crop_size=crop_size, stride=(107, 107)))
train_pipeline = _base_.train_pipeline
next(t for t in train_pipeline if t['type'] == 'RandomCrop')['crop_size'] = crop_size
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(
        type='PolyLR',
        eta_min=0,
        power=0.9,
        begin=50,
        end=max_iters,
        by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
