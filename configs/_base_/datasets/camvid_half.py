# CamVid at half its size, 240x180, as `python tools/prepare_camvid.py --half data/camvid` writes it. Images are resized on
# the grid of their labels.
_base_ = './camvid.py'
data_root = 'data/camvid_half/'
img_scale = (240, 180)
crop_size = (160, 224)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        resize_type='AlignedResize',
        scale=img_scale,
        ratio_range=(0.75, 1.75),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=16,
        contrast_range=(0.75, 1.25),
        saturation_range=(0.75, 1.25),
        hue_delta=9),
    dict(type='PackSegInputs')
]
half = dict(data_root=data_root, img_suffix='.png')
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline, **half))
val_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=half)
test_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=half)
