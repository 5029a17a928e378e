# Every resampler in the same pyramid, with the same budget: does learning how to upsample pay, and where? mIoU over all
# pixels and near boundaries. Thirty-six runs, about an hour on two CPU cores.
base = '../shapes/fpn_r18-tiny_1xb8-400_shapes-128x128.py'


def resampler(type, **kwargs):
    return {'model.neck.resampler': dict(_delete_=True, type=type, **kwargs)}


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
        sapa=resampler('SAPA'),
        freq_fusion=resampler('FreqFusion'),
        flow_align=resampler('FlowAlign'),
        gated_flow_align=resampler('GatedFlowAlign')))
seeds = [0, 1, 2]
compare = 'resampler'
metric = 'mIoU'
