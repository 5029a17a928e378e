# Weights that were trained with 17 px of padding, as a pyramid of strides 4 to 32 needs at 112, and tested with one, as it
# needs at 224, lost four points near the border (exact_pad_sizes_pyramid_shapes). Does a margin on every side, of a stride
# or more at both sizes, prevent it? Declared is that difference at twice the size. Eighteen runs of a minute and a half each
# on a CPU core.
base = '../lean/sfnet-fpn_r18-tiny-lean_1xb8-400_shapes-128x128.py'


def input_size(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n),
    }


axes = dict(
    pixel_model=dict(
        exact_pad={'policy': 'exact+pad'},
        with_margin={
            'model.resize_policy':
            dict(exact=True, pad='replicate', pad_margin=32)
        },
        false={'model.decode_head.align_corners': False}),
    input={str(n): input_size(n)
           for n in (112, 168, 224)})
train = dict(input='112')
seeds = [0, 1, 2, 3, 4, 5]
evaluations = dict(
    own=dict(),
    half_more=dict(input={'112': '168'}),
    twice=dict(input={'112': '224'}))
evaluators = dict(
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    frame=dict(type='FrameDistanceIoUMetric', distances=[32]))
compare = 'pixel_model'
metric = 'mIoU'
family = [dict(pixel_model='with_margin', evaluation='twice')]
