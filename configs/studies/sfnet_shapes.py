# Does flow alignment repair what resizes misplace? SFNet against its FPN baseline, which is the same decoder with
# interpolation, under False, True and exact resizes, at 128 = 4 * 32 and 129 = 4 * 32 + 1 pixels.
# If it does, it gains most where the levels of the pyramid are misregistered, under False at either size and under True at
# 128, and least under exact resizes.
base = '../shapes/sfnet_r18-tiny_1xb8-400_shapes-128x128.py'


def input_size(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n),
    }


axes = dict(
    decoder=dict(
        fpn={
            'model.decode_head.resampler':
            dict(_delete_=True, type='Interpolate', mode='bilinear')
        },
        sfnet={}),
    align_corners=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'model.resize_policy.exact': True}),
    input={str(n): input_size(n) for n in (128, 129, 256, 257)})
# At 129 exact resizes differ from True in the pooled branch alone.
train = [
    dict(input='128'),
    dict(input='129', align_corners=['false', 'true']),
]
seeds = list(range(8))  # what five comparisons take
evaluations = dict(
    own=dict(),
    twice=dict(input={'128': '256', '129': '257'}),
    other_flag=dict(
        align_corners=dict(false='true', true='false', exact='false')))
compare = 'decoder'
metric = 'mIoU'
