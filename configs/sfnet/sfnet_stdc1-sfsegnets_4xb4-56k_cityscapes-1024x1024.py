# As released by SFSegNets: the sampling of
# the flow is that of the code since 2022-07. For the one before, on torch 1.3 and later (nobody knows which the weights of
# 2020 were trained with): --cfg-options model.decode_head.resampler.convention=sfsegnets-2020
# Weights: mmseg-resample convert.
_base_ = './sfnet_stdc1_4xb4-56k_cityscapes-1024x1024.py'
model = dict(
    decode_head=dict(
        align_corners=True, resampler=dict(convention='sfsegnets')))
