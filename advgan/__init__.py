"""AdvGAN: adversarial images in one forward pass (Xiao et al., IJCAI 2018)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advgan.attacks.advgan_attack import AdvGANAttack
    from advgan.run_folder import reference_run

__all__ = ["AdvGANAttack", "reference_run"]
__version__ = "0.2.0"
_HOMES = {"AdvGANAttack": "advgan.attacks.advgan_attack", "reference_run": "advgan.run_folder"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing TensorFlow takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from advgan.startup import import_tensorflow

    import_tensorflow()
    return getattr(import_module(_HOMES[name]), name)
