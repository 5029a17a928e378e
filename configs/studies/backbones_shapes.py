# Odd kernels against patches: what suits a thin ResNet-18 and a thin MiT (features of stride s on pixel s * i) should not
# suit a thin Swin (features on s * i + (s - 1) / 2). The same head and the same single resize behind each, at 128 and at 129
# pixels, tested as trained, at twice the size and with the other flag.
# 96 runs; training the MiT took 26 s of one core, the Swin 30 s.
# The question is the interaction: does True - False change its sign between backbones, and between 128 and 129?
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
        true={'model.decode_head.align_corners': True}),
    # As in ../shapes/fcn_mit-tiny_... and fcn_swin-tiny_...
    backbone=dict(
        r18={},
        mit={
            'model.backbone': dict(
                _delete_=True,
                type='MixVisionTransformer',
                embed_dims=16,
                num_stages=2,
                num_layers=[1, 2],
                num_heads=[1, 2],
                patch_sizes=[7, 3],
                strides=[4, 2],
                sr_ratios=[4, 2],
                out_indices=(1, ),
                mlp_ratio=4,
                drop_path_rate=0.0),
            'optim_wrapper.optimizer.lr': 0.003,
        },
        swin={
            'model.backbone': dict(
                _delete_=True,
                type='SwinTransformer',
                embed_dims=16,
                patch_size=4,
                window_size=8,
                mlp_ratio=4,
                depths=(2, 2),
                num_heads=(1, 2),
                strides=(4, 2),
                out_indices=(1, ),
                drop_path_rate=0.0),
        }),
    input={str(n): input_size(n) for n in (128, 129, 256, 257)})
train = dict(input=['128', '129'])
seeds = list(range(8))  # what six comparisons take
evaluations = dict(
    own=dict(),
    twice=dict(input={'128': '256', '129': '257'}),
    other_flag=dict(align_corners=dict(false='true', true='false')))
compare = 'align_corners'
metric = 'mIoU'
