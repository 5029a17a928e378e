_base_ = './sfnet_r18.py'
model = dict(
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(depth=50),
    decode_head=dict(in_channels=[256, 512, 1024, 2048], channels=256))
