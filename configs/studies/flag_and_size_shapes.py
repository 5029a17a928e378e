# Does the better value of align_corners depend on the size of the input? A network of 3x3 kernels and stride 8, at 128 =
# 8 * 16, which suits False, and at 129 = 8 * 16 + 1, which suits True. Declared is one comparison: by how much True -
# False changes from one size to the other. Six seeds can decide it.
# Twenty-four runs of half a minute. The scenes of 128 and 129 pixels are windows onto the same ones.
base = '../lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py'


def input_size(n):
    return {
        'model.data_preprocessor.size': (n, n),
        'train_dataloader.dataset.size': (n, n),
        'test_dataloader.dataset.size': (n, n),
    }


axes = dict(
    align_corners=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True}),
    input={str(n): input_size(n) for n in (128, 129)})
seeds = [0, 1, 2, 3, 4, 5]
compare = 'align_corners'
metric = 'mIoU'
family = [dict(interaction=dict(input=['128', '129']), evaluation='own')]
