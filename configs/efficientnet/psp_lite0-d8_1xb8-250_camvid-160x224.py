# The same backbone, dilated to stride 8, and pyramid pooling: logits of stride 8 without a finer level.
_base_ = './sfnet-fpn_lite0_1xb8-250_camvid-160x224.py'
model = dict(
    backbone=dict(out_indices=(2, ), output_stride=8),
    decode_head=dict(
        _delete_=True,
        type='PSPHead',
        in_channels=112,
        in_index=0,
        channels=48,
        pool_scales=(1, ),
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=_base_.model.decode_head.loss_decode))
