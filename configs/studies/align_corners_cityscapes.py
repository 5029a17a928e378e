# Cityscapes on a cluster: UPerNet on a pretrained ResNet-50 (odd kernels) by mmseg's recipe of 80k iterations, eight images
# per iteration: --procs-per-run 4. Crops of 512x1024 = (16 * 32) x (32 * 32) and 513x1025 pixels; whole test images as
# they are, 1024x2048, or padded to 1025x2049; and by windows of the crop's size.
# 35 runs.
base = '../upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'


def crop(h, w, **padding):
    return {
        'model.data_preprocessor.size': (h, w),
        'model.data_preprocessor.test_cfg': dict(_delete_=True, **padding),
        'model.test_cfg.crop_size': (h, w),
        'train_dataloader.dataset.pipeline.RandomCrop.crop_size': (h, w),
    }


def flag(value):
    return {
        'model.decode_head.align_corners': value,
        'model.auxiliary_head.align_corners': value,
    }


axes = dict(
    align_corners=dict(
        false=flag(False),
        true=flag(True),
        exact={'model.resize_policy.exact': True}),
    input={
        '512x1024': crop(512, 1024, size_divisor=32),
        '513x1025': crop(513, 1025, size=(1025, 2049)),
    },
    mode=dict(
        whole={'model.test_cfg.mode': 'whole'},
        slide={'model.test_cfg.mode': 'slide'}))
train = [
    dict(input='512x1024', mode='whole'),
    dict(input='513x1025', mode='whole', align_corners=['false', 'true']),
]
seeds = list(range(7))  # what three comparisons take
evaluations = dict(
    own=dict(),
    windows=dict(mode=dict(whole='slide')),
    other_flag=dict(
        align_corners=dict(false='true', true='false', exact='false')))
compare = 'align_corners'
metric = 'mIoU'
