# ADE20K on a cluster: UPerNet on a pretrained Swin-T (patches, which False suits at any size that they divide) by mmseg's
# recipe of 160k iterations, sixteen images per iteration: --procs-per-run 8. Crops of 512 and 513 pixels, with test images
# resized to a shorter side of the same; whole, and by windows of the crop's size.
# 28 runs.
base = '../upernet/upernet_swin-tiny_8xb2-160k_ade20k-512x512.py'


def crop(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'model.test_cfg.crop_size': (n, n),
        'train_dataloader.dataset.pipeline.RandomCrop.crop_size': (n, n),
        'test_dataloader.dataset.pipeline.Resize.scale': (4 * n, n),
    }


def flag(value):
    return {
        'model.decode_head.align_corners': value,
        'model.auxiliary_head.align_corners': value,
    }


axes = dict(
    align_corners=dict(false=flag(False), true=flag(True)),
    input={'512': crop(512), '513': crop(513)},
    mode=dict(
        whole={'model.test_cfg.mode': 'whole'},
        slide={'model.test_cfg.mode': 'slide'}))
train = dict(mode=['whole'])
seeds = list(range(7))  # what two comparisons take
evaluations = dict(
    own=dict(),
    windows=dict(mode=dict(whole='slide')),
    other_flag=dict(align_corners=dict(false='true', true='false')))
compare = 'align_corners'
metric = 'mIoU'
