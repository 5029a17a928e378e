# Does it depend on the stride of the finest features whether exact pays on a covered image? The two stages of the same
# network at strides 4, 8 and 16, from logits to labels by one resize. `pad` is the control: whole strides of padding, False.
# Seventy-two runs of half a minute each on an idle CPU core.
base = '../lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py'
axes = dict(
    pixel_model=dict(
        false={'model.decode_head.align_corners': False},
        exact_pad={'policy': 'exact+pad'},
        pad={'policy': 'pad'}),
    stride={
        '4': {'model.backbone.strides': (1, 1)},
        '8': {'model.backbone.strides': (1, 2)},
        '16': {'model.backbone.strides': (2, 2)},
    })
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    frame=dict(type='FrameDistanceIoUMetric', distances=[4, 8, 16]))
compare = 'pixel_model'
metric = 'mIoU'
family = [dict(pixel_model='exact_pad')]
