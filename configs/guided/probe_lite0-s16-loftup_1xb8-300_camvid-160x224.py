_base_ = './probe_lite0-s16_1xb8-300_camvid-160x224.py'
model = dict(decode_head=dict(resampler=dict(_delete_=True, type='LoftUp')))
