# List this base first: importing the package makes the `mmseg::` bases after it resolvable on every supported set of
# versions (mmseg_resample/compat.py says which need it), in mmseg's own tools too.
__import__('mmseg_resample')  # an import statement would make this a lazy config to mmengine
custom_imports = dict(imports=['mmseg_resample'], allow_failed_imports=False)
