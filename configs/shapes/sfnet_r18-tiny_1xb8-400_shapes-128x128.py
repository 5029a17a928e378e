# The same with flow alignment in the top-down pathway; what flows it learns is logged.
_base_ = './sfnet-fpn_r18-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    decode_head=dict(resampler=dict(_delete_=True, type='FlowAlign')))
custom_hooks = [dict(type='FlowLoggerHook', interval=50)]
