from dataclasses import dataclass
@dataclass(frozen=True)
class Difference:
    path: str
def differences(*a): return []
def trained_resizes(m): return None
