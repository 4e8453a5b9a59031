"""AdvGAN: adversarial images in one forward pass (Xiao et al., IJCAI 2018)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advgan.attacks.advgan_attack import AdvGANAttack

__all__ = ["AdvGANAttack"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``AdvGANAttack`` when it is first asked for: TensorFlow takes seconds."""
    if name != "AdvGANAttack":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from advgan.startup import import_tensorflow

    import_tensorflow()
    from advgan.attacks.advgan_attack import AdvGANAttack

    return AdvGANAttack
