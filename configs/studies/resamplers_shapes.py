# Every resampler in the same pyramid, with the same budget: does learning how to upsample pay, and where? mIoU over all
# pixels and near boundaries. Offsets and kernels of SAPA and FreqFusion learn at a twentieth of the rate, chosen on the
# validation scenes (docs/resamplers.md). The last five are guided by the image.
# 102 runs, four to six hours on two CPU cores. The published report is of an earlier state: three seeds, without the last
# five, and SAPA and FreqFusion before they were what their authors have.
base = '../shapes/fpn_r18-tiny_1xb8-400_shapes-128x128.py'


def resampler(type, **kwargs):
    return {'model.neck.resampler': dict(_delete_=True, type=type, **kwargs)}


def slow(type, **kwargs):
    rates = {'neck.resamplers': dict(lr_mult=0.05)}
    return resampler(type, **kwargs) | {
        'optim_wrapper.paramwise_cfg.custom_keys': rates
    }


def guided(type, **kwargs):
    backbone = dict(
        type='ResNetV1c',
        depth=18,
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3),
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type='BN', requires_grad=True),
        style='pytorch')
    wrapped = dict(_delete_=True, type='WithImage', backbone=backbone)
    return resampler(type, **kwargs) | {'model.backbone': wrapped}


axes = dict(
    resampler=dict(
        bilinear={},
        nearest=resampler('Interpolate', mode='nearest'),
        bicubic=resampler('Interpolate', mode='bicubic'),
        deconv=resampler('Deconv'),
        pixel_shuffle=resampler('PixelShuffle'),
        carafe=resampler('CARAFE'),
        dysample=resampler('DySample', groups=4),
        fade=resampler('FADE'),
        sapa=slow('SAPA'),
        freq_fusion=slow('FreqFusion'),
        flow_align=resampler('FlowAlign'),
        gated_flow_align=resampler('GatedFlowAlign'),
        jafar=guided('JAFAR', qk_channels=32),
        anyup=guided('AnyUp', qk_channels=32),
        naf=guided('NAF', qk_channels=32),
        loftup=guided('LoftUp'),
        joint_bilateral=guided('JointBilateral', steps=1)))
seeds = [0, 1, 2, 3, 4, 5]
compare = 'resampler'
metric = 'mIoU'
family = [dict(resampler='jafar', evaluation='own')]
