# Does registration matter to upsamplers that are guided by the image? JAFAR and LoftUp on the grids that their authors
# published, and on the one where the features are: frozen features of stride 16 of EfficientNet-Lite0, whose weights look at
# pixel (9.2, 9.9) under the padding that they were trained with, and at (-5.6, -5.2) under PyTorch's
# (`mmseg-resample audit CONFIG --weights own`). JAFAR takes them to begin at 7.5, LoftUp spreads them from the first pixel
# to the last.
# Declared are both under PyTorch's padding, as in ResNets: 13 px off in JAFAR. 42 runs of four minutes on a CPU core.
# It needs `pip install "mmseg_resample[pretrained]"` and `python tools/prepare_camvid.py --half data/camvid`.
base = '../guided/probe_lite0-s16_1xb8-300_camvid-160x224.py'


def resampler(type, **kwargs):
    return {
        'model.decode_head.resampler': dict(_delete_=True, type=type, **kwargs)
    }


def registered(*shift):
    return {'policy': dict(exact=True, level_shifts=[(0, 0), shift])}


def padding(kind):
    return {'model.backbone.backbone.padding': kind}


axes = dict(
    resampler=dict(
        jafar=resampler('JAFAR'),
        loftup=resampler('LoftUp', convention='loftup')),
    grid=dict(
        published={},
        registered=registered(-5.63, -5.19),
        registered_same=registered(-5.76, -5.12)),
    padding=dict(symmetric=padding('symmetric'), same=padding('same')))
train = [
    dict(grid=['published', 'registered'], padding='symmetric'),
    dict(
        resampler='loftup',
        grid=['published', 'registered_same'],
        padding='same'),
]
seeds = list(range(7))
compare = 'grid'
metric = 'mIoU'
evaluators = dict(
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    displacement=dict(type='DisplacementMetric'))
family = [dict(grid='registered', evaluation='own')]
speed = dict(channels_last=True, fold_norms=True)
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
