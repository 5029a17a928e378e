# FreqFusion adds the finer level at each step; how it was published on SegFormer is not known here.
_base_ = './segformer_mit-b1_8xb2-160k_ade20k-512x512.py'
model = dict(
    decode_head=dict(
        stepwise=True, resampler=dict(type='FreqFusion')))
