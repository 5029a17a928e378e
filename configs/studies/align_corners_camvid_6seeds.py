# CamVid for an evening on two CPU cores: the network of align_corners_camvid.py at half the width, from scratch, crops of
# 160 = 5 * 32 and 161 pixels, 1000 iterations, six seeds, which is the least that can be significant at 5 % where one
# comparison is declared; the two others are there to look at.
# An iteration took 0.57 to 0.68 s of one core and a test image 0.18 s (30 iterations and 10 images, on a busy
# machine; no run was made in full): about 12 minutes for a run with its two tests, three hours for the 30 runs.
base = '../sfnet/sfnet-fpn_r18-thin_1xb8-1k_camvid-160x160.py'


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
    input={'160': crop(160, size_divisor=32), '161': crop(161, size=(385, 481))})
train = [
    dict(input='160'),
    dict(input='161', align_corners=['false', 'true']),
]
seeds = [0, 1, 2, 3, 4, 5]
evaluations = dict(
    own=dict(),
    other_flag=dict(
        align_corners=dict(false='true', true='false', exact='false')))
compare = 'align_corners'
metric = 'mIoU'
family = [dict(evaluation='own', input='160', align_corners='true')]
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
