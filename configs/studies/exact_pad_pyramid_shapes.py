# Does exact pay once the image covers its own grids, where the finest level has stride 4? A pyramid of strides 4 to 32 at
# 128 = 4 * 32, where the coarsest features end 31 px inside the image and levels meet up to 14 px apart under False, and
# at 129, where nothing is missing and exact is True. `pad` is the control that tells coverage from registration: a stride
# of the coarsest level more of the image's last pixels, every flag as it was.
# Declared is exact on a covered image against False, as trained. Forty-two runs of a minute and a half each on a CPU core
# with their tests. Planned were eight seeds and three comparisons, cut for time when the first seeds were finished.
base = '../lean/sfnet-fpn_r18-tiny-lean_1xb8-400_shapes-128x128.py'


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
    input={str(n): input_size(n) for n in (128, 129, 192, 193, 256, 257)})
train = [
    dict(input='128'),
    dict(input='129', pixel_model=['false', 'true']),
]
seeds = [0, 1, 2, 3, 4, 5]
evaluations = dict(
    own=dict(),
    half_more=dict(input={'128': '192', '129': '193'}),
    twice=dict(input={'128': '256', '129': '257'}))
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    frame=dict(type='FrameDistanceIoUMetric', distances=[32]))
compare = 'pixel_model'
metric = 'mIoU'
family = [
    dict(input='128', pixel_model='exact_pad', evaluation='own'),
]
