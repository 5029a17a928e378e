_base_ = './sfnet_stdc1.py'
model = dict(
    backbone=dict(
        stdc_type='STDCNet2',
        init_cfg=dict(
            checkpoint=
            'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/stdc/stdc2_20220308-7dbd9127.pth'
        )))
