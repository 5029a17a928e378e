# CamVid on one GPU: SFNet's FPN baseline on a pretrained ResNet-18, crops of 352 = 11 * 32 and 353 pixels, ten seeds of 10k
# iterations. Test images of 480x360 are padded to the same form: 480x384 = (15 * 32) x (12 * 32), or 481x385.
# At 353 exact resizes differ from True in the pooled branch alone, and are left out. 50 runs.
base = '../sfnet/sfnet-fpn_r18-resampled_1xb8-10k_camvid-352x352.py'


def crop(n, **padding):
    return {
        'model.data_preprocessor.size': (n, n),
        'model.data_preprocessor.test_cfg': dict(_delete_=True, **padding),
        'model.test_cfg.crop_size': (n, n),
        'train_dataloader.dataset.pipeline.RandomCrop.crop_size': (n, n),
    }


axes = dict(
    align_corners=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'model.resize_policy.exact': True}),
    input={'352': crop(352, size_divisor=32), '353': crop(353, size=(385, 481))},
    mode=dict(
        whole={'model.test_cfg.mode': 'whole'},
        slide={'model.test_cfg.mode': 'slide'}))
train = [
    dict(input='352', mode='whole'),
    dict(input='353', mode='whole', align_corners=['false', 'true']),
]
seeds = list(range(10))
evaluations = dict(
    own=dict(),
    windows=dict(mode=dict(whole='slide')),
    other_flag=dict(
        align_corners=dict(false='true', true='false', exact='false')))
compare = 'align_corners'
metric = 'mIoU'
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
