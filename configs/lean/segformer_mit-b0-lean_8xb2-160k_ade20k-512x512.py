# SegFormer, whose 1x1 fusion also moves in front of its resizes. All switches, as they are by default.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
]
model = dict(
    type='LeanSegmentor',
    lean=dict(
        loss=True, labels=True, slide=True, fusion=True, seg_logits=True))
