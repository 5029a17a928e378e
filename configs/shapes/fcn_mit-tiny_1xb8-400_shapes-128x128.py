# Two stages of a thin Mix Transformer (MiT, of SegFormer): patches that overlap, 7x7 of stride 4 and 3x3 of stride 2. Odd
# kernels like those of a ResNet: feature i of stride 8 lies on pixel 8 * i. Head and resize are those of the ResNet.
_base_ = './fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    backbone=dict(
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
        drop_path_rate=0.0))
optim_wrapper = dict(optimizer=dict(lr=0.003))
