# As released by SFSegNets, with a stem of 128 channels and its dilation: the sampling of
# the flow is that of the code since 2022-07. For the one before, on torch 1.3 and later (nobody knows which the weights of
# 2020 were trained with): --cfg-options model.decode_head.resampler.convention=sfsegnets-2020
# Weights: mmseg-resample convert.
_base_ = './sfnet-lite_r18_4xb4-186k_cityscapes-1024x1024.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    pretrained=None,  # OpenMMLab has no weights for such a stem
    backbone=dict(
        _delete_=True, type='SFNetResNet', depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        align_corners=True, resampler=dict(convention='sfsegnets')))
