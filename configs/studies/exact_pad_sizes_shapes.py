# What exact on a covered image gains at other sizes than 128: a network of stride 8, whose whole gain lies within 8 px of the
# border. Where that is all there is to it, the gain follows the frame's share of the image and falls as images grow.
# Declared is that fall, from 96 to 160; 112 and 144 lie between. Forty-eight runs of about 40 seconds each on a CPU core.
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
        exact_pad={'policy': 'exact+pad'}),
    input={
        str(n): input_size(n)
        for n in (96, 112, 144, 160, 168, 192, 216, 224, 240, 288, 320)
    })
train = dict(input=['96', '112', '144', '160'])
seeds = [0, 1, 2, 3, 4, 5]
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
        interaction=dict(input=['96', '160']),
        pixel_model='exact_pad',
        evaluation='own'),
]
