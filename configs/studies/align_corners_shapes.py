# What align_corners does to a network of 3x3 kernels, at an input that suits False in size (128 = 8 * 16) and at one
# that suits True (129 = 8 * 16 + 1), next to exact resizes: tested as trained, at twice the size, and deployed with the
# other flag. The scenes of 128, 129, 256 and 257 pixels are windows onto the same ones.
# Eighteen runs, six minutes on two CPU cores. Three seeds show the effect, eight can make it a finding: the same command
# with --seeds 0 1 2 3 4 5 6 7 adds thirty runs.
base = '../shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'


def input_size(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n),
    }


axes = dict(
    align_corners=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'model.resize_policy.exact': True}),
    input={str(n): input_size(n) for n in (128, 129, 256, 257)})
train = dict(input=['128', '129'])
seeds = [0, 1, 2]
evaluations = dict(
    own=dict(),
    twice=dict(input={'128': '256', '129': '257'}),
    other_flag=dict(
        align_corners=dict(false='true', true='false', exact='false')))
compare = 'align_corners'
metric = 'mIoU'
