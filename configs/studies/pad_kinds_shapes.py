# What should stand in the rows and columns that cover the image, and is it worth having them on all sides? A network of
# stride 8 with exact resizes: copies of the outermost pixels, the image mirrored, zeros behind the normalisation (the mean
# colour), and a stride more of copies on every side, so that the zeros of the convolutions stay outside the image.
# Thirty-two runs of half a minute each on an idle CPU core.
base = '../lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py'
axes = dict(
    padding=dict(
        replicate={'policy': 'exact+pad'},
        reflect={'policy': 'exact+reflect'},
        constant={'policy': 'exact+constant'},
        all_sides={
            'model.resize_policy': dict(exact=True, pad='replicate', pad_margin=8),
        }))
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    frame=dict(type='FrameDistanceIoUMetric', distances=[8]))
compare = 'padding'
metric = 'mIoU'
