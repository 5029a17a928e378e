# The block that goes behind any stock config of mmseg: same losses, labels, weights and checkpoints, without full-resolution
# logits. See docs/lean.md.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
]
model = dict(type='LeanSegmentor')
