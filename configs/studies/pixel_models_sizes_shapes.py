# Five pixel models at four sizes: a network of stride 8 at 96, 112, 144 and 160 pixels. `exact` without `pad`, and `pad` without
# `exact`, which is the control that tells coverage from registration: a stride more of the image's last pixels, every flag as
# it was.
# Declared is what exact on a covered image gains at each size, as trained. exact_pad_sizes_shapes found +1.34, +1.27, +1.02
# and +0.91 points in six seeds, without having declared it; these are eight others.
# 160 runs of 40 seconds each on a CPU core.
base = '../lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py'


def input_size(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n),
    }


axes = dict(
    pixel_model=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'policy': 'exact'},
        exact_pad={'policy': 'exact+pad'},
        pad={'policy': 'pad'}),
    input={
        str(n): input_size(n)
        for n in (96, 112, 144, 160, 168, 192, 216, 224, 240, 288, 320)
    })
train = dict(input=['96', '112', '144', '160'])
seeds = list(range(6, 14))
evaluations = dict(
    own=dict(),
    half_more=dict(input={
        '96': '144',
        '112': '168',
        '144': '216',
        '160': '240'
    }),
    twice=dict(input={
        '96': '192',
        '112': '224',
        '144': '288',
        '160': '320'
    }))
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    frame=dict(type='FrameDistanceIoUMetric', distances=[8]))
compare = 'pixel_model'
metric = 'mIoU'
family = [
    dict(
        input=['96', '112', '144', '160'],
        pixel_model='exact_pad',
        evaluation='own'),
]
speed = dict(channels_last=True, fold_norms=True)
