# The same question for a pyramid of strides 4 to 32, where the shifts under False differ from level to level and can not
# all be learned away by one convolution: False, True and exact at 128 and 129 (of the form n * 32 + 1).
base = '../shapes/sfnet-fpn_r18-tiny_1xb8-400_shapes-128x128.py'


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
