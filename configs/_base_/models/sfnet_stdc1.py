_base_ = './sfnet_r18.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='STDCPyramid',
        stdc_type='STDCNet1',
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=
            'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/stdc/stdc1_20220308-5368626c.pth'
        )),
    decode_head=dict(in_channels=[64, 256, 512, 1024], channels=64))
