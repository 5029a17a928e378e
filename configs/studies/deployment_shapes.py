# Train one way, deploy another: the same weights with the other flag, with the `asymmetric` resizes that an ONNX or TensorRT
# conversion may put in, with exact ones, as an ONNX file, on other image sizes, and by sliding windows of the training size.
# 21 runs of a minute and a half on a CPU core; their evaluations are the matrix {trained with} x {tested with}.
base = '../lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py'


def size(n):
    return {
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n)
    }


def tested_as(variant):
    return dict(pixel_model=dict(false=variant, true=variant, exact=variant))


axes = dict(
    pixel_model=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact={'policy': 'exact'},
        asymmetric={'policy': 'asymmetric'}),
    input={str(n): size(n) for n in (128, 129, 256)},
    mode=dict(
        whole={'model.test_cfg.mode': 'whole'},
        slide={
            'model.test_cfg':
            dict(mode='slide', crop_size=(128, 128), stride=(64, 64))
        }),
    runtime=dict(pytorch={}, onnx={'runtime': 'onnxruntime'}))
train = dict(
    pixel_model=['false', 'true', 'exact'], input='128', mode='whole')
seeds = list(range(7))  # what two comparisons take
evaluations = dict(
    own=dict(),
    as_onnx=dict(runtime=dict(pytorch='onnx')),
    as_false=tested_as('false'),
    as_true=tested_as('true'),
    as_exact=tested_as('exact'),
    as_asymmetric=tested_as('asymmetric'),
    size_129=dict(input={'128': '129'}),
    size_256=dict(input={'128': '256'}),
    windows_256=dict(input={'128': '256'}, mode=dict(whole='slide')),
    asymmetric_256=dict(**tested_as('asymmetric'), input={'128': '256'}))
compare = 'pixel_model'
metric = 'mIoU'
