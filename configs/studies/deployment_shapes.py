# Train one way, deploy another: the same weights with the other flag, with the `asymmetric` resizes that an ONNX or TensorRT
# conversion may put in, with exact ones, on other image sizes, and by sliding windows of the training size.
# 21 runs; their evaluations are the matrix {trained with} x {tested with}.
base = '../shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'



def size(n):
    return {'train_dataloader.dataset.size': (n, n), 'test_dataloader.dataset.size': (n, n)}


def tested_as(variant):
    return dict(align_corners=dict(false=variant, true=variant, exact=variant))


axes = dict(
    align_corners=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'model.resize_policy.exact': True},
        asymmetric={'model.resize_policy.rules': [dict(coordinates='asymmetric')]}),
    input={str(n): size(n) for n in (128, 96, 129, 192, 256)},
    mode=dict(
        whole={'model.test_cfg.mode': 'whole'},
        slide={'model.test_cfg': dict(mode='slide', crop_size=(128, 128), stride=(64, 64))}))
train = dict(
    align_corners=['false', 'true', 'exact'], input='128', mode='whole')
seeds = list(range(7))  # what two comparisons take
evaluations = dict(
    own=dict(),
    as_false=tested_as('false'),
    as_true=tested_as('true'),
    as_exact=tested_as('exact'),
    as_asymmetric=tested_as('asymmetric'),
    size_96=dict(input={'128': '96'}),
    size_129=dict(input={'128': '129'}),
    size_192=dict(input={'128': '192'}),
    size_256=dict(input={'128': '256'}),
    windows_256=dict(input={'128': '256'}, mode=dict(whole='slide')),
    asymmetric_256=dict(**tested_as('asymmetric'), input={'128': '256'}))
compare = 'align_corners'
metric = 'mIoU'
